# The MPS2 boards (Cortex-M3, Cortex-M4F) for MicroPython's port qemu, with a network.
QEMU_ARCH = arm
CFLAGS   += -DQEMU_SOC_MPS2 -DMICROPY_HW_MCU_NAME='"$(MCU_NAME)"'
SRC_BOARD_O = shared/runtime/gchelper_native.o shared/runtime/gchelper_thumb2.o

include $(BOARD_DIR)/../qemu/common.mk
LDSCRIPT  = $(QEMU_DIR)/mps2.ld
SRC_C    += qemu/mps2.c qemu/lan9118.c

# lwIP lies in MicroPython's tree, or where the Makefile put it.
MICROPY_PY_NETWORK = 1
MICROPY_PY_LWIP = 1
ifneq ($(LWIP),)
vpath %.c $(LWIP)
CFLAGS += -I$(LWIP)/lib/lwip/src/include
endif
