VERSION = "1"
FAILS = 0  # 4: every fourth request is answered by 500
