// Nothing: what the module needs of it is declared in py/mphal.h.
