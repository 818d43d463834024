# What the board.mk of an emulated board has in common. A board adds NEEDS, SOURCES, BUDGET, and QEMU, the command that runs
# the firmware.
PORT      = qemu
PROG      = firmware.elf
PORT_ARGS = BOARD=$(BOARD) BOARD_DIR=$(BOARD_DIR) $(if $(LWIP),LWIP=$(LWIP))
