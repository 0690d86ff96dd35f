'use strict';
// Serve `/`, `/slow?s=2` and `/stream?s=4` on the socket that LISTEN_FDS passes as descriptor 3.
// TERM: accept no more, finish what is open, exit with 0.

const http = require('http');
const { version } = require('./version.json');

const FIRST_FD = 3; // sd_listen_fds(3)

if (process.env.LISTEN_PID !== String(process.pid) || Number(process.env.LISTEN_FDS) < 1) {
  console.error('no socket was passed: start this with sockmgr or systemd');
  process.exit(1);
}

const answer = () => JSON.stringify({ pid: process.pid, version });

function stream(response, seconds) {
  response.write(answer() + '\n');
  const end = Date.now() + seconds * 1000;
  const timer = setInterval(() => {
    if (Date.now() < end) {
      response.write('tick\n');
    } else {
      clearInterval(timer);
      response.end('END\n');
    }
  }, 200);
  response.on('close', () => clearInterval(timer));
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const seconds = Math.min(60, Number(url.searchParams.get('s') ?? 1));
  if (url.pathname === '/stream') {
    stream(response, seconds);
    return;
  }
  const respond = () => {
    const body = answer();
    response.writeHead(200, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(body),
    });
    response.end(body);
  };
  if (url.pathname === '/slow') setTimeout(respond, seconds * 1000);
  else respond();
});

server.listen({ fd: FIRST_FD });

process.on('SIGTERM', () => {
  server.close(() => process.exit(0)); // closes idle kept-alive connections, too (Node 19)
});
