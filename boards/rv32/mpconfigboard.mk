QEMU_ARCH    = riscv32
QEMU_MACHINE = virt
# As Debian's compiler and C library understand it.
RV32_ARCH    = rv32imac
AFLAGS      += -misa-spec=2.2
CFLAGS      += -DQEMU_SOC_VIRT -DMICROPY_HW_MCU_NAME='"$(RV32_ARCH)"'
LDFLAGS     += -nostartfiles
LDSCRIPT     = mcu/rv32/virt.ld
SRC_BOARD_O += shared/runtime/gchelper_native.o shared/runtime/gchelper_rv32i.o
# More than the port's 140 KB, because the sockets of its tests are Python.
MICROPY_HEAP_SIZE = 200704
UMQTT_TARGET = riscv32imac-unknown-none-elf
MPY_CROSS_FLAGS += -march=rv32imc

include $(BOARD_DIR)/../qemu/common.mk
SRC_C       += $(notdir $(BOARD_DIR))/virt.c
