"""Many hosts: releases that Ansible deploys to booted Debians behind a balancer, under load."""
