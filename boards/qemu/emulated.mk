# For MicroPython's port qemu. A board adds NEEDS, and QEMU, the command that runs the firmware.
PORT      = qemu
PROG      = firmware.elf
PORT_ARGS = BOARD=$(BOARD) BOARD_DIR=$(BOARD_DIR) $(if $(LWIP),LWIP=$(LWIP))
