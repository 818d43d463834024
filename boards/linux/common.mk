# What the boards of MicroPython's unix port on Linux have in common: they differ in their mpconfigvariant files.
PORT      = unix
PROG      = micropython
PORT_ARGS = VARIANT_DIR=$(BOARD_DIR)
NEEDS     = pkgconf libffi-dev $(if $(wildcard $(MPY_DIR)/lib/mbedtls/library),,libmbedtls-dev)
# Bytes of flash, of a client's RAM without its buffers, and of stack: what there is now.
BUDGET    = engine=24850 flash=49900 client=1792 stack=3072
