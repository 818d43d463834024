# What all emulated boards share: files of this folder, and sizes for a small microcontroller.
QEMU_DIR := $(abspath $(BOARD_DIR)/../qemu)
vpath %.c $(QEMU_DIR)/..
CFLAGS   += -I$(QEMU_DIR)

MICROPY_PY_THREAD ?= 0
UMQTT_OPT_LEVEL ?= s
UMQTT_RX_BUFFER ?= 1024
UMQTT_TX_BUFFER ?= 1024
UMQTT_KEPT      ?= 8192
