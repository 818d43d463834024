# Builds MicroPython with the module umqtt in it, for the board named by BOARD. `make help` lists the goals.
#
# Everything that is fetched or built goes under build/. A board is a folder of boards/ (see boards/unix/board.mk);
# nothing else names it.

# What make, the shell or a compiler's option takes for its own: MicroPython's makefiles don't quote paths.
ifneq ($(shell pwd -P | LC_ALL=C tr -d '[:alnum:]\200-\377/._+@~^\n-' | wc -c),0)
$(error This folder's path has a space or a sign in it that make does not bear: $(CURDIR))
endif
BOARDS := $(sort $(patsubst boards/%/board.mk,%,$(wildcard boards/*/board.mk)))
TESTED := $(or $(BOARD),$(BOARDS))
# And on MicroPython's next version, unless the caller chose a board or a version.
TESTED_NEXT := $(if $(BOARD)$(MPY_DIR)$(MPY_VERSION),,\
	$(patsubst boards/%/board.mk,%,$(shell grep -l '^TEST_NEXT' boards/*/board.mk)))
BOARD  ?= unix
ifneq ($(words $(BOARD)) $(filter $(BOARD),$(BOARDS)),1 $(BOARD))
$(error There is no board '$(BOARD)'. The boards are: $(BOARDS))
endif
BOARD_DIR := $(CURDIR)/boards/$(BOARD)
# Where the board's port has its makefile, and whether what it builds can be run here.
PORT_DIR   = $(MPY_DIR)/ports/$(PORT)
RUNS       = yes
include $(BOARD_DIR)/board.mk

# What the board or the caller says of the module (micropython.mk) is for its build alone. CMake keeps what it was told
# first, so there another word makes another build.
SETTINGS := $(filter UMQTT_%,$(.VARIABLES))
$(foreach name,$(SETTINGS),$(eval port: export $(name) := $$($(name))))
quote = '$(subst ','\'',$(1))'
TOLD = $(if $(MODULES_FILE),$(shell printf %s $(call quote,$(foreach name,CARGO $(sort $(SETTINGS)),$(name)=$($(name)))) | cksum))

# BARE=1: the board's MicroPython without the module, to compare with.
OUT      := $(CURDIR)/build/$(BOARD)$(if $(BARE),-bare)$(if $(NEXT),-next)
FIRMWARE := build/$(notdir $(OUT))/$(PROG)

# rustup's cargo need not be on the PATH of the shell that calls make.
CARGO ?= $(or $(shell command -v cargo 2>/dev/null),$(wildcard ~/.cargo/bin/cargo),cargo)
export CARGO
# For cargo fmt, clippy and test; the archive's own directory is in the board's.
export CARGO_TARGET_DIR := $(CURDIR)/build/cargo

# MicroPython's own make: as many jobs as there are processors, unless the caller said -j (MAKEFLAGS tells, but only inside
# a recipe); silent but for what it says of itself, unless V=1.
MPY_MAKE = $(MAKE) --no-print-directory $(if $(V),,-s) $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

# MicroPython's source: the caller's checkout, or else a Debian source package, pinned. NEXT=1: the version after it. That
# Debian suite moves on, and then `make` says what it has, and this version has to follow.
ifdef NEXT
MPY_VERSION := 1.26.1+ds-1
MPY_SUITE   := forky
endif
MPY_VERSION ?= 1.25.0+ds-1
MPY_SUITE   ?= trixie
ifdef MPY_DIR
override MPY_DIR := $(abspath $(MPY_DIR))
ifeq ($(wildcard $(MPY_DIR)/py/mkenv.mk),)
$(error MPY_DIR=$(MPY_DIR) is no MicroPython source tree)
endif
else
MPY_DIR   := $(CURDIR)/build/micropython-$(MPY_VERSION)
FETCH_MPY := $(MPY_DIR)
endif

# lwIP's source, for a board that wants it (SOURCES): MicroPython's own, or else a Debian source package, which comes to lie
# beside it, for MicroPython's tree is not ours to write to.
LWIP_VERSION ?= 2.2.1+dfsg
LWIP_SUITE   ?= trixie
ifneq ($(filter lwip,$(SOURCES)),)
ifeq ($(wildcard $(MPY_DIR)/lib/lwip/src/core),)
LWIP       := $(CURDIR)/build/lwip-$(LWIP_VERSION)
FETCH_LWIP := $(LWIP)/lib/lwip
endif
endif

MPY_CROSS := $(CURDIR)/build/mpy-cross$(if $(NEXT),-next)

# Debian packages, as tools/need knows them: for the board, for the fetching, for the goal.
NEEDED = $(sort gcc libc6-dev python3 $(NEEDS) \
	$(foreach source,$(FETCH_MPY) $(FETCH_LWIP),$(if $(wildcard $(source)),,dpkg-dev xz-utils)) \
	$(if $(filter demo repl test,$(MAKECMDGOALS)),mosquitto) \
	$(if $(filter test,$(MAKECMDGOALS)),openssl strace))

# $(call start-over,DIRECTORY,ORIGIN): MicroPython's makefiles do not notice that another source tree or other
# options came in, or that a name (QSTR) is gone which frozen code takes for granted, so a directory that was not built
# from ORIGIN is emptied.
start-over = mkdir -p $(1); [ "$$(cat $(1)/.origin 2>/dev/null)" = "$(2)" ] || \
	{ rm -rf $(1); mkdir -p $(1); echo "$(2)" >$(1)/.origin; }
# Boards include what others have, so all of their makefiles count.
hash := \#
ORIGIN = $(MPY_DIR) $(TOLD) $(shell (grep -hv '^$(hash)\|^BUDGET' boards/*/*.mk boards/*/Makefile micropython_mod/umqtt/*.mk; \
	grep -ho 'MP_QSTR_[A-Za-z_]*' micropython_mod/umqtt/*.[ch] | sort -u) | cksum)

.DEFAULT_GOAL := firmware
.PHONY: firmware port demo repl test size facts clean help mpy-cross tools

firmware: mpy-cross | $(FETCH_LWIP) ## build build/BOARD/ (the default)
	@$(call start-over,$(OUT),$(ORIGIN))
	+@$(MAKE) --no-print-directory port
ifdef QEMU
	@printf '#!/bin/sh\n# Runs the firmware, with its console on the standard input and output.\nexec %s "$$@"\n' \
	  '$(QEMU) -display none -monitor none -serial stdio -semihosting -kernel "$$(dirname "$$0")/$(PROG)"' >$(OUT)/run
	@chmod +x $(OUT)/run
endif
	@echo "Built $(FIRMWARE)"

# The port's own build, of the C modules in the folder MODULES; CMake wants the file (MODULES_FILE).
MODULES = $(if $(BARE),,$(CURDIR)/micropython_mod$(MODULES_FILE))
port:
	+@$(MPY_MAKE) -C $(PORT_DIR) BUILD=$(OUT) $(PORT_ARGS) \
	  USER_C_MODULES=$(MODULES) FROZEN_MANIFEST=$(CURDIR)/boards/manifest.py \
	  MICROPY_MPYCROSS=$(MPY_CROSS)/mpy-cross

mpy-cross: tools | $(FETCH_MPY)
	@$(call start-over,$(MPY_CROSS),$(MPY_DIR))
	+@$(MPY_MAKE) -C $(MPY_DIR)/mpy-cross BUILD=$(MPY_CROSS) BOARD= USER_C_MODULES=

ifdef FETCH_MPY
$(FETCH_MPY):
	@tools/fetch-source micropython $(MPY_VERSION) $(MPY_SUITE) $@
endif

ifdef FETCH_LWIP
$(FETCH_LWIP): | tools
	@mkdir -p $(@D)
	@tools/fetch-source lwip $(LWIP_VERSION) $(LWIP_SUITE) $@
endif

tools:
	@tools/need $(NEEDED)
	@$(CARGO) --version >/dev/null || { echo "Rust is missing: install it with rustup, which gives cargo" >&2; exit 1; }
	@$(if $(filter test,$(MAKECMDGOALS)),for part in fmt clippy; do $(CARGO) $$part --version >/dev/null 2>&1 || \
	  { echo "cargo $$part is missing; with rustup it is: rustup component add rustfmt clippy" >&2; exit 1; }; done)

ifneq ($(filter demo repl,$(MAKECMDGOALS)),)
$(if $(RUNS),,$(error What is built for $(BOARD) does not run here))
$(if $(filter demo,$(MAKECMDGOALS)),$(if $(QEMU),$(error demo is for the unix boards)))
endif

demo: firmware ## run examples/demo.py on it, against a broker of its own
	@tools/with-broker timeout 60 $(FIRMWARE) examples/demo.py

repl: firmware ## MicroPython's prompt, with a broker beside it
	@$(if $(QEMU),$(OUT)/run,tools/with-broker tools/repl $(FIRMWARE))

test: tools ## all tests, on every board (or on BOARD)
	@for board in $(TESTED); do $(MAKE) --no-print-directory BOARD=$$board firmware || exit; done
	@for board in $(TESTED_NEXT); do $(MAKE) --no-print-directory BOARD=$$board NEXT=1 firmware || exit; done
	@python3 tests/all.py $(TESTED) $(TESTED_NEXT:%=build/%-next/micropython)

size: tools ## what the module costs on every board (or on BOARD), and whether that is within its budget
	@for board in $(TESTED); do $(MAKE) --no-print-directory BOARD=$$board firmware >&2 || exit; \
	  [ -z "$$($(MAKE) -s --no-print-directory BOARD=$$board facts | grep '^RUNS=.')" ] || \
	    $(MAKE) --no-print-directory BOARD=$$board BARE=1 firmware >&2 || exit; done
	@python3 tools/size.py $(TESTED)

# What board.mk says, and where the build is, for programs.
facts:
	@$(foreach name,OUT PROG RUNS ELF BUDGET MPY_DIR MACHINE ORIGIN,echo '$(name)=$(strip $($(name)))';)

clean: ## remove build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z]*\):.* ## /  make \1: /p' Makefile
	@echo "BOARD= is one of: $(BOARDS)"
	@echo "MPY_DIR= builds in a MicroPython checkout of yours instead of fetching one"
