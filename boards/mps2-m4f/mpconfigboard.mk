QEMU_MACHINE = mps2-an386
MCU_NAME     = Cortex-M4F
CFLAGS      += -mthumb -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard
UMQTT_TARGET = thumbv7em-none-eabihf
MPY_CROSS_FLAGS += -march=armv7emsp

include $(BOARD_DIR)/../qemu/mps2.mk
