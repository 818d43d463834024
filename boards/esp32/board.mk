# ESP32-C3: RISC-V (rv32imc), which Rust's own compiler knows. The older ESP32, S2 and S3 are Xtensa: for those, cargo has to be
# Espressif's fork. With ESP-IDF (IDF_PATH) and a MicroPython checkout that has its submodules, this builds MicroPython's
# port esp32; without, the module alone, by boards/cmake.
PORT_DIR  = $(if $(IDF_PATH),$(MPY_DIR)/ports/esp32,$(CURDIR)/boards/cmake)
PROG     := $(if $(IDF_PATH),micropython.elf,firmware.elf)
PORT_ARGS = BOARD=ESP32_GENERIC_C3 BOARD_DIR=boards/ESP32_GENERIC_C3 $(if $(IDF_PATH),,MPY_DIR=$(MPY_DIR) \
  CROSS_COMPILE=riscv64-unknown-elf- MACHINE='-march=rv32imc -mabi=ilp32 -misa-spec=2.2 $(AS_ESP_IDF)' LIBC=--specs=picolibc.specs)
# MicroPython's port says so.
AS_ESP_IDF = -O2 -DMICROPY_NLR_SETJMP=1
NEEDS     = cmake gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf
UMQTT_TARGET = riscv32imc-unknown-none-elf
UMQTT_THREAD_STACK ?= 8192
include boards/cmake/common.mk
