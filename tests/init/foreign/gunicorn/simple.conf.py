wsgi_app = "shop.wsgi:application"
bind = ["0.0.0.0:8000", "[::]:8000"]
workers = 3
daemon = True
reload = False
