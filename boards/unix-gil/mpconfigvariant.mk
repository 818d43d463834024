include variants/standard/mpconfigvariant.mk

# Debian's source package comes without Berkeley DB.
MICROPY_PY_BTREE = 0
# As MicroPython's variant coverage has it.
CFLAGS += -Wmissing-declarations -Wmissing-prototypes
