# MicroPython's unix port as it comes: threads without a GIL.
#
# A board.mk says which of MicroPython's ports the board is, what that port's build leaves behind, what it is called
# with, and which Debian packages it takes (tools/need knows them).
#
# TEST_NEXT: `make test` tests it on MicroPython's next version as well.
TEST_NEXT = yes
include boards/linux/common.mk
