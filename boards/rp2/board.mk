# Raspberry Pi Pico W: RP2040, two Cortex-M0+. With a MicroPython checkout that has its submodules (make BOARD=rp2
# MPY_DIR=...) this builds MicroPython's port rp2; without, the module alone, by boards/cmake.
RP2_SDK   = $(wildcard $(MPY_DIR)/lib/pico-sdk/pico_sdk_init.cmake)
PORT_DIR  = $(if $(RP2_SDK),$(MPY_DIR)/ports/rp2,$(CURDIR)/boards/cmake)
PROG      = firmware.elf
PORT_ARGS = BOARD=RPI_PICO_W BOARD_DIR=boards/RPI_PICO_W $(if $(RP2_SDK),,MPY_DIR=$(MPY_DIR) \
  CROSS_COMPILE=arm-none-eabi- MACHINE='-mcpu=cortex-m0plus -mthumb')
NEEDS     = cmake gcc-arm-none-eabi libnewlib-arm-none-eabi
ELF       = CPU_arch=v6S-M ABI_VFP_args=- CPU_unaligned_access=-
UMQTT_TARGET = thumbv6m-none-eabi
UMQTT_THREAD_STACK ?= 6144
include boards/cmake/common.mk
