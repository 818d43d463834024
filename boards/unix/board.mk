# MicroPython's unix port as it comes: threads without a GIL.
#
# A board.mk says which of MicroPython's ports the board is, what that port's build leaves behind, what it is called
# with, and which Debian packages it takes (tools/need knows them).
PORT      = unix
PROG      = micropython
PORT_ARGS = VARIANT_DIR=$(BOARD_DIR)
NEEDS     = pkgconf libffi-dev $(if $(wildcard $(MPY_DIR)/lib/mbedtls/library),,libmbedtls-dev)
