# Raspberry Pi Pico W: RP2040, two Cortex-M0+. With a MicroPython checkout that has its submodules (make BOARD=rp2
# MPY_DIR=...) this builds MicroPython's port rp2; without, the module alone, by boards/cmake.
RP2_SDK   = $(wildcard $(MPY_DIR)/lib/pico-sdk/pico_sdk_init.cmake)
PORT_DIR  = $(if $(RP2_SDK),$(MPY_DIR)/ports/rp2,$(CURDIR)/boards/cmake)
MODULES_FILE = /umqtt/micropython.cmake
PROG      = firmware.elf
PORT_ARGS = BOARD=RPI_PICO_W BOARD_DIR=boards/RPI_PICO_W CMAKE_ARGS='-DUMQTT_TARGET=thumbv6m-none-eabi -DUMQTT_OPT_LEVEL=s \
  -DUMQTT_RX_BUFFER=2048 -DUMQTT_TX_BUFFER=2048 -DUMQTT_KEPT=16384 -DUMQTT_THREAD_STACK=6144 \
  $(if $(RP2_SDK),,-DMICROPY_DIR=$(MPY_DIR) -DCROSS_COMPILE=arm-none-eabi- "-DMACHINE=-mcpu=cortex-m0plus -mthumb")'
NEEDS     = cmake gcc-arm-none-eabi libnewlib-arm-none-eabi
RUNS      =
ELF       = CPU_arch=v6S-M ABI_VFP_args=- CPU_unaligned_access=-
BUDGET    = client=1024 stack=3072
