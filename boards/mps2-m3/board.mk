# A Cortex-M3 under QEMU, with real sockets: MicroPython's port qemu, lwIP, and the LAN9118 of the MPS2 boards.
# mpconfigboard.mk has what is the processor's; boards/qemu what all emulated boards share.
include boards/qemu/board.mk
QEMU = qemu-system-arm -machine mps2-an385 -nic user,model=lan9118
