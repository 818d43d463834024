# QuecPython's build has one; MicroPython's rules look at its date.
