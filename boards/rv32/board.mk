# A 32-bit RISC-V under QEMU. It has no network: sockets, if any, are the script's own.
include boards/qemu/emulated.mk
NEEDS = gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc
QEMU  = qemu-system-riscv32 -machine virt -bios none
BUDGET = engine=13650 flash=20600 client=1024 stack=3072
