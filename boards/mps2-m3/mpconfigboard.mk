QEMU_MACHINE = mps2-an385
MCU_NAME     = Cortex-M3
CFLAGS      += -mthumb -mcpu=cortex-m3 -mfloat-abi=soft
UMQTT_TARGET = thumbv7m-none-eabi
MPY_CROSS_FLAGS += -march=armv7m

include $(BOARD_DIR)/../qemu/mps2.mk
