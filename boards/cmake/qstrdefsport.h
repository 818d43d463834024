// A port's own names: none.
