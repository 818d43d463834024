# What the board.mk of an emulated board has in common; a board adds its QEMU, the command that runs the firmware.
PORT      = qemu
PROG      = firmware.elf
PORT_ARGS = BOARD=$(BOARD) BOARD_DIR=$(BOARD_DIR) $(if $(LWIP),LWIP=$(LWIP))
NEEDS     = gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
SOURCES   = lwip
