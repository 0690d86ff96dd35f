// As `pm2 init simple` writes it, and then some.
module.exports = {
  apps: [
    {
      name: 'api',
      script: './server.js',
      instances: 'max',          /* one a core */
      exec_mode: "cluster",
      node_args: '--max-old-space-size=512',
      env: { NODE_ENV: 'development', PORT: 3000 },
      env_production: { NODE_ENV: 'production' },
      max_memory_restart: '300M',
      kill_timeout: 5000,
      listen_timeout: 8000,
      wait_ready: true,
      out_file: '/var/log/api.out',
    },
    {
      name: 'mailer',
      script: 'worker.js',
      args: ['--queue', 'mail now'],
      cwd: '/srv/mailer',
      autorestart: false,
      cron_restart: '0 3 * * *',
      watch: ['src'],
    },
  ],

  deploy: {
    production: { user: 'node', host: 'web1', repo: 'git@host:repo.git', path: '/var/www' },
  },
};
