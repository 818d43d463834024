# A Cortex-M3 under QEMU, with real sockets: MicroPython's port qemu, lwIP, and the LAN9118 of the MPS2 boards.
# mpconfigboard.mk has what is the processor's; boards/qemu what the emulated boards share.
include boards/qemu/emulated.mk
NEEDS   = gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
SOURCES = lwip
QEMU    = qemu-system-arm -machine mps2-an385 -nic user,model=lan9118
ELF     = CPU_arch=v7 ABI_VFP_args=-
# Bytes of flash, of a client's RAM without its buffers, and of stack: what there is now. The goal is in docs/firmware.md.
BUDGET  = engine=10350 flash=15800 client=1024 stack=3072
