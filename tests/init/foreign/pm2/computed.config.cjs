const path = require('path');

module.exports = {
  apps: [{
    name: "site",
    script: path.join(__dirname, "dist", "main.js"),
    instances: process.env.WEB_CONCURRENCY || 2,
    env: {
      NODE_ENV: "production",
      DATABASE_URL: process.env.DATABASE_URL,
      GREETING: `hello`,
      URL: `http://${process.env.HOST}/`,
    },
    uid: 'www',
    error_file: "/dev/null",
  }, {
    name: "py",
    script: "manage.py",
    args: "runserver 0.0.0.0:8000",
    interpreter: "venv/bin/python",
  }],
}
