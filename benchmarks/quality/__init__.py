"""How often the watch over answers is wrong, and how soon it is right, where windows that follow each other are alike.

__main__.py   runs it and writes the page
drift.py      services made with seeds; what is found in them
"""
