# MicroPython's unix port as it comes: threads without a GIL.
#
# A board.mk says which of MicroPython's ports the board is, what that port's build leaves behind, what it is called
# with, and which Debian packages it takes (tools/need knows them).
#
# TEST_NEXT: `make test` tests it on MicroPython's next version as well.
TEST_NEXT = yes
PORT      = unix
PROG      = micropython
PORT_ARGS = VARIANT_DIR=$(BOARD_DIR)
NEEDS     = pkgconf libffi-dev $(if $(wildcard $(MPY_DIR)/lib/mbedtls/library),,libmbedtls-dev)
# Bytes of flash, of a client's RAM without its buffers, and of stack: what there is now.
BUDGET    = engine=31500 flash=53500 client=1792 stack=3072
