# A reload that removes web is still under way when others have it again. Its verdict came last, and
# web was removed then.
family 118 settles
tells COMMITTED 3 for #2, #3, #4
reload 16240 0
reload 7 0
edit 2 0
storm 0 0
