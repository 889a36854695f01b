# Makefile - build, test, lint. `make help` lists the targets; V=1 shows the commands.
#
# Everything is built under build/<mode>/, MODE=release|debug|asan|ubsan|tsan. Modules are static libraries, one a
# folder; LINK_<module> below is the dependency direction of the source tree.

MODE ?= release
BUILD ?= build
B := $(BUILD)/$(MODE)
CC ?= gcc
CXX ?= g++
V ?= 0
Q := $(if $(filter 1,$(V)),,@)

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
OPT_release := -O2 -g
OPT_debug := -O0 -g3
OPT_asan := -O1 -g -fsanitize=address -fno-omit-frame-pointer
OPT_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT := $(OPT_$(MODE))
ifeq ($(OPT),)
$(error MODE=$(MODE): use release, debug, asan, ubsan or tsan)
endif
WERROR ?=
CFLAGS_ALL = -std=c17 -D_POSIX_C_SOURCE=200809L -I. -I$(B)/gen $(WARN) $(WERROR) $(OPT) -pthread $(CFLAGS)
CXXFLAGS_ALL = -std=c++17 -I. -Wall -Wextra -Wshadow $(WERROR) $(OPT) -pthread $(CXXFLAGS)

# ---- modules ---------------------------------------------------------------------------------------------------
MODULES := core ir spaces compress compiler eval device-agent adb latency db strategies search tools
DIR_strategies := search/strategies
folder = $(or $(DIR_$(1)),$(1))

# Programs: their main files are left out of the module libraries.
MAIN_nas-search := search/nas_search.c
MAIN_nas-agent := tools/nas_agent.c
# The agents for devices take their main from here (scripts/agents.sh).
CFLAGS_device-agent_nas_agent := -DNAS_AGENT_HOST
MAIN_nas-query := tools/nas_query.c
MAIN_nas-compile := tools/nas_compile.c
MAIN_nas-latency := tools/nas_latency.c
MAIN_nas-compress := search/nas_compress.c
PROGRAMS := nas-search nas-compile nas-agent nas-query nas-latency nas-compress
MAINS := $(foreach p,$(PROGRAMS),$(MAIN_$(p)))

# What each module links with, itself first (order matters to the linker only).
LINK_core := core
LINK_ir := ir core
LINK_spaces := spaces ir core
LINK_compress := compress ir core
LINK_compiler := compiler ir core
LINK_eval := eval ir core
LINK_device-agent := device-agent core
LINK_adb := adb device-agent core
LINK_latency := latency adb device-agent ir core
LINK_db := db core
LINK_strategies := strategies spaces ir core
LINK_search := search strategies spaces compress compiler eval latency adb device-agent db ir core
LINK_tools := tools latency adb device-agent spaces compiler db ir core
LINK_nas-search := $(LINK_search)
LINK_nas-agent := adb device-agent core
LINK_nas-query := tools db core
LINK_nas-compile := tools latency adb device-agent compiler db ir core
LINK_nas-latency := $(LINK_tools)
LINK_nas-compress := $(LINK_search)

# Packaged libraries, by the one module that uses each.
PKG_ir := libprotobuf-c
PKG_compress := openblas lapacke
PKG_eval := libpng libjpeg zlib
PKG_latency := gsl libcurl jansson
PKG_db := sqlite3
PKG_search := jansson
PKG_tools := jansson zlib
# OpenBLAS first: GSL's library ends with a slow BLAS under the same names.
pkgs = $(filter openblas,$(pkgs_of)) $(filter-out openblas,$(pkgs_of))
pkgs_of = $(sort $(foreach m,$(1),$(PKG_$(m))))
libs_of = $(if $(call pkgs,$(1)),$(shell pkg-config --libs $(call pkgs,$(1)) 2>/dev/null))
PKG_ALL := $(call pkgs,$(MODULES))
PKG_CFLAGS := $(shell pkg-config --cflags $(PKG_ALL) 2>/dev/null)

# Files compiled once per instruction set and dispatched at run time (x86-64 only; elsewhere the base copy).
MULTI_ISA := eval/train_kernels.c eval/exec_kernels.c latency/dense_kernels.c
ISA_FLAGS_base := -Wno-psabi
ISA_FLAGS_avx2 := -mavx2 -mfma -ffp-contract=fast
ISA_FLAGS_avx512 := -march=skylake-avx512 -mprefer-vector-width=512 -ffp-contract=fast
ISAS := base $(if $(findstring x86_64,$(shell uname -m)),avx2 avx512)

src_c = $(filter-out $(MAINS) $(MULTI_ISA),$(wildcard $(call folder,$(1))/*.c))
src_cc = $(wildcard $(call folder,$(1))/*.cc)
multi_of = $(filter $(call folder,$(1))/%,$(wildcard $(MULTI_ISA)))
objs_of = $(patsubst %.c,$(B)/obj/%.o,$(call src_c,$(1))) $(patsubst %.cc,$(B)/obj/%.o,$(call src_cc,$(1))) \
          $(foreach i,$(ISAS),$(patsubst %.c,$(B)/obj/%.$(i).o,$(call multi_of,$(1)))) $(GENOBJ_$(1))
archive = $(B)/lib/lib$(1).a
archives = $(foreach m,$(1),$(call archive,$(m)))

GENOBJ_ir := $(B)/obj/gen/onnx.pb-c.o

.PHONY: all help deps run agents test check bench lint fmt asan ubsan tsan fuzz soak golden clean FORCE
all: $(foreach p,$(PROGRAMS),$(B)/bin/$(p))

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

deps: ## install the Debian packages that are missing (root or sudo)
	@scripts/install_packages.sh

run: deps ## install, build, and run the main job to its Pareto table
	$(Q)$(MAKE) --no-print-directory all
	$(B)/bin/nas-search --config configs/sr720p.toml || test $$? -eq 3 # a table, but nothing in time

test: deps ## install, build and run every test
	$(Q)$(MAKE) --no-print-directory agents || echo "note: not every agent for a device could be built: their tests skip"
	$(Q)$(MAKE) --no-print-directory check

# Changed flags rebuild: every object depends on this stamp.
STAMP := $(B)/flags.stamp
$(STAMP): FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CFLAGS_ALL) $(CXXFLAGS_ALL)' | cmp -s - $@ || echo '$(CC) $(CFLAGS_ALL) $(CXXFLAGS_ALL)' > $@

PKG_MISSING := $(foreach p,$(PKG_ALL),$(if $(shell pkg-config --exists $(p) 2>/dev/null && echo y),,$(p)))
$(B)/obj/%.o: %.c $(STAMP)
	$(if $(strip $(PKG_MISSING)),$(error missing libraries: $(PKG_MISSING) - run 'make deps'))
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CFLAGS_ALL) $(PKG_CFLAGS) $(CFLAGS_$(subst /,_,$*)) -MMD -MP -c $< -o $@

$(B)/obj/%.o: %.cc $(STAMP)
	@mkdir -p $(@D)
	@echo "  CXX   $<"
	$(Q)$(CXX) $(CXXFLAGS_ALL) -MMD -MP -c $< -o $@

define isa_rule
$(B)/obj/%.$(1).o: %.c $(STAMP)
	@mkdir -p $$(@D)
	@echo "  CC    $$< ($(1))"
	$(Q)$(CC) $$(CFLAGS_ALL) $$(ISA_FLAGS_$(1)) -DNAS_ISA=$(1) -MMD -MP -c $$< -o $$@
endef
$(foreach i,$(ISAS),$(eval $(call isa_rule,$(i))))

# Tile registers of x86-64; called only where processor and system have them.
CFLAGS_eval_exec_tiles := $(if $(findstring x86_64,$(shell uname -m)),-march=sapphirerapids -mprefer-vector-width=512)

# The policies' small nets: loops worth the vectoriser.
CFLAGS_search_strategies_dense := -O3
ifneq ($(filter asan ubsan debug,$(MODE)),)
CFLAGS_search_strategies_dense :=
endif

# ONNX schema: generated from the packaged onnx.proto.
ONNX_PROTO ?= /usr/include/onnx/onnx.proto
$(B)/gen/onnx.pb-c.c: $(ONNX_PROTO)
	@mkdir -p $(@D)
	$(Q)protoc-c --c_out=$(B)/gen --proto_path=$(dir $(ONNX_PROTO)) $(ONNX_PROTO)
$(B)/gen/onnx.pb-c.h: $(B)/gen/onnx.pb-c.c
$(B)/obj/gen/onnx.pb-c.o: $(B)/gen/onnx.pb-c.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -w $(OPT) -I$(B)/gen -c $< -o $@
$(patsubst %.c,$(B)/obj/%.o,$(wildcard ir/onnx_*.c tests/ir/*onnx_*.c)): $(B)/gen/onnx.pb-c.h

# compiler/rt/ travels inside the compiler: embedded as byte arrays.
RT_FILES := $(wildcard compiler/rt/*.c compiler/rt/*.h)
$(B)/gen/rt_embed.inc: $(RT_FILES) scripts/embed.sh $(STAMP)
	@mkdir -p $(@D)
	$(Q)scripts/embed.sh $(RT_FILES) > $@.tmp && mv $@.tmp $@
$(B)/obj/compiler/rt_embed.o: $(B)/gen/rt_embed.inc

define lib_rule
$(call archive,$(1)): $(call objs_of,$(1))
	@mkdir -p $$(@D)
	@echo "  AR    $$@"
	$(Q)rm -f $$@ && $(AR) rcs $$@ $$^
endef
$(foreach m,$(MODULES),$(eval $(call lib_rule,$(m))))

has_cxx = $(foreach m,$(1),$(call src_cc,$(m)))
linker_for = $(if $(strip $(call has_cxx,$(1))),$(CXX),$(CC))
define program_rule
$(B)/bin/$(1): $(B)/obj/$(MAIN_$(1):.c=.o) $(call archives,$(LINK_$(1)))
	@mkdir -p $$(@D)
	@echo "  LD    $$@"
	$(Q)$(call linker_for,$(LINK_$(1))) $(OPT) -pthread $(LDFLAGS_$(1)) -o $$@ $$< $(call archives,$(LINK_$(1))) $(call libs_of,$(LINK_$(1))) -lm
endef
$(foreach p,$(PROGRAMS),$(eval $(call program_rule,$(p))))

# ---- tests: tests/<module>/*.c -> one Criterion program a module ---------------------------------------------------
TEST_MODULES := $(foreach m,$(MODULES),$(if $(wildcard tests/$(m)/*.c),$(m)))
LINK_TEST_latency := latency adb device-agent ir core
LINK_TEST_compress := compress eval ir core
LINK_TEST_search := $(LINK_search)
test_links = $(or $(LINK_TEST_$(1)),$(LINK_$(1)))
# Criterion's assertion macros convert int to a bit field. `private`: the flags stamp must not see it.
$(B)/obj/tests/%.o: private CFLAGS += -Wno-conversion
SUPPORT_OBJ := $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/support/*.c))
define test_rule
$(B)/tests/$(1): $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/$(1)/*.c)) $(SUPPORT_OBJ) $(call archives,$(call test_links,$(1)))
	@mkdir -p $$(@D)
	@echo "  LD    $$@"
	$(Q)$(call linker_for,$(call test_links,$(1))) $(OPT) -pthread -o $$@ $$(filter %.o,$$^) $$(filter %.a,$$^) $(call libs_of,$(call test_links,$(1))) -lcriterion -lm
endef
$(foreach m,$(TEST_MODULES),$(eval $(call test_rule,$(m))))
# The reference forward of the compiler's tests judges the ONNX files as well.
$(B)/tests/ir: $(patsubst %,$(B)/obj/tests/compiler/%.o,reference reference_forward)
$(B)/tests/compress: $(B)/obj/tests/compiler/reference.o $(B)/obj/tests/compiler/reference_forward.o
$(B)/tests/search: $(B)/obj/tests/ir/ir_support.o


# `make check` runs all; `make check-ir` one module. Programs are built first: some tests start them.
TEST_JOBS ?= 2
define check_rule
.PHONY: check-$(1)
check-$(1): $(B)/tests/$(1) $(TEST_NEEDS_$(1))
	@echo "  TEST  $(1)"
	$(Q)NAS_BIN_DIR=$(CURDIR)/$(B)/bin LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0 \
	    $(B)/tests/$(1) --jobs $(TEST_JOBS)
endef
TEST_NEEDS_latency = $(B)/bin/nas-agent
TEST_NEEDS_device-agent = $(B)/bin/nas-agent
TEST_NEEDS_search = all
TEST_NEEDS_tools = $(B)/bin/nas-query $(B)/bin/nas-latency $(B)/bin/nas-agent $(B)/bin/nas-compile
$(foreach m,$(TEST_MODULES),$(eval $(call check_rule,$(m))))
check: all ## run every test (what `make test` does after installing)
	$(Q)scripts/check_symbols.sh $(call archives,$(MODULES))
	$(Q)set -e; for m in $(TEST_MODULES); do $(MAKE) --no-print-directory check-$$m; done; \
	    $(MAKE) --no-print-directory check-rig; echo "all tests passed ($(MODE))"

asan: ## all tests under AddressSanitizer and LeakSanitizer
	$(Q)$(MAKE) --no-print-directory MODE=asan check
ubsan: ## all tests under UndefinedBehaviorSanitizer
	$(Q)$(MAKE) --no-print-directory MODE=ubsan check
tsan: ## a study on two agents and a network on three threads under ThreadSanitizer
	$(Q)$(MAKE) --no-print-directory MODE=tsan all
	$(Q)scripts/tsan.sh build/tsan/bin $(CC)

# ---- the device lab of the tests: tests/rig/ -----------------------------------------------------------------------
# Fake phones in Python; what runs inside them, before and below qemu-user, is C. Never sanitized: it is no code of ours
# that a user runs, and a sanitizer's start-up would be part of every program of a phone.
RIG_TOOLS := $(B)/rig/launch $(B)/rig/shim.so $(B)/rig/vclock.so
RIG_CFLAGS := -std=c17 -O2 $(WARN) $(WERROR)
$(B)/rig/launch: tests/rig/launch.c Makefile
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(RIG_CFLAGS) -D_POSIX_C_SOURCE=200809L -static -o $@ $<
$(B)/rig/%.so: tests/rig/%.c Makefile
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(RIG_CFLAGS) -fPIC -fvisibility=hidden -shared -o $@ $<
.PHONY: rig check-rig
rig: $(RIG_TOOLS) ## build the tools of the fake phones (tests/rig/lab.py)
check-rig: all $(RIG_TOOLS) $(B)/tests/latency
	@echo "  TEST  rig"
	$(Q)if ! command -v python3 >/dev/null; then echo "skipped: python3 is not installed (apt-get install python3)"; exit 0; fi; \
	    NAS_BIN_DIR=$(CURDIR)/$(B)/bin NAS_RIG_DIR=$(CURDIR)/$(B)/rig NAS_AGENTS_DIR=$(CURDIR)/$(BUILD)/agents \
	    NAS_TESTS_DIR=$(CURDIR)/$(B)/tests \
	    LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0 python3 tests/rig/run.py

# ---- benchmarks: bench/<name>.c -> build/<mode>/bench/<name> -------------------------------------------------------
# The peak loops of the benchmarks use the widest vectors of this CPU.
$(B)/obj/bench/%.o: private CFLAGS += -march=native -mprefer-vector-width=512 -ffp-contract=fast
# bench-predictor and bench-compress are targets of their own: they take minutes and want data.
BENCHES := $(filter-out bench_predictor bench_compress bench_reward,$(patsubst bench/%.c,%,$(wildcard bench/*.c)))
$(B)/bench/%: $(B)/obj/bench/%.o $(call archives,$(LINK_search))
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CXX) $(OPT) -pthread -o $@ $< $(call archives,$(LINK_search)) $(call libs_of,$(LINK_search)) -lm $(BENCH_LIBS_$*)
bench: all $(foreach b,$(BENCHES),$(B)/bench/$(b)) ## run the benchmarks (never part of the tests)
	$(Q)set -e; for b in $(BENCHES); do echo "== $$b"; $(B)/bench/$$b; done

.PHONY: bench-compress-strategies
bench-compress-strategies: all ## strategies that choose channels, equal evaluations (hours; SEEDS, TUNE ... shorten it; DATA=../shared/data)
	$(Q)bench/compress_strategies.sh $(B)/bin/nas-search $(B)/bin/nas-query $(or $(DATA),../shared/data) \
	    $(B)/compress-strategies

.PHONY: bench-sparse
bench-sparse: all ## what sparse layers gain here (minutes; ALL=1: every layer, an hour); NET=mobilenetv2.onnx adds a whole network
	$(Q)bench/sparse.sh $(B)/bin/nas-compile $(NET)
.PHONY: bench-sparse-arm
bench-sparse-arm: all ## what sparse layers would gain on 64-bit Arm by static cost (llvm-mca and the cross compiler; minutes)
	$(Q)scripts/static_sparse.sh

.PHONY: bench-search
SEARCH_DIR ?= runs/bench-search
SEARCH_SEEDS ?= 1 2 3
bench-search: all ## device-seconds to a hypervolume, with and without the predictor (half an hour; resumes)
	$(Q)BIN=$(B)/bin bench/search.sh run $(SEARCH_DIR) $(SEARCH_SEEDS)
	$(Q)BIN=$(B)/bin bench/search.sh table $(SEARCH_DIR)

.PHONY: bench-predictor
PREDICTOR_ARGS ?=
$(B)/bench/bench_predictor: $(B)/obj/bench/bench_predictor.o $(call archives,$(LINK_tools))
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CXX) $(OPT) -pthread -o $@ $< $(call archives,$(LINK_tools)) $(call libs_of,$(LINK_tools)) -lm
bench-predictor: $(B)/bench/bench_predictor ## device models on published latencies (PREDICTOR_ARGS='--data ../shared/data')
	$(Q)$(B)/bench/bench_predictor $(PREDICTOR_ARGS)

.PHONY: bench-compress
COMPRESS_ARGS ?=
bench-compress: $(B)/bench/bench_compress ## one-shot compression of ResNet-20 (COMPRESS_ARGS='--data ../shared/data --seeds 3')
	$(Q)$(B)/bench/bench_compress $(COMPRESS_ARGS)

.PHONY: bench-reward
REWARD_ARGS ?=
bench-reward: $(B)/bench/bench_reward ## time of one evaluation of a channel search (REWARD_ARGS='--net resnet20 --proposals 12')
	$(Q)$(B)/bench/bench_reward $(REWARD_ARGS)

.PHONY: bench-engines
ENGINES_ARGS ?=
bench-engines: all ## our programs beside other engines (Python, network: see bench/engines/)
	$(Q)bench/engines/setup.sh
	$(Q)build/engines-venv/bin/python bench/engines/nets.py build/engines/nets
	$(Q)setsid --wait build/engines-venv/bin/python bench/engines/run.py --nas-compile $(B)/bin/nas-compile $(ENGINES_ARGS)

# fuzz/fuzz_*.c: libFuzzer targets, built by scripts/fuzz.sh (clang).
FUZZERS := $(patsubst fuzz/%.c,%,$(wildcard fuzz/fuzz_*.c))
$(B)/fuzz/%: $(B)/obj/fuzz/%.o $(call archives,$(LINK_search) tools device-agent)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CXX) $(OPT) -fsanitize=fuzzer,undefined -pthread -o $@ $< $(call archives,tools $(filter-out core,$(LINK_search)) device-agent core) $(call libs_of,$(LINK_search) tools) -lm
.PHONY: fuzz-targets
fuzz-targets: $(foreach f,$(FUZZERS),$(B)/fuzz/$(f))
fuzz: ## run every fuzz target for FUZZ_SECONDS each (clang)
	$(Q)scripts/fuzz.sh
soak: all $(B)/tests/search ## 50 rounds of kill -9 and resume
	$(Q)NAS_BIN_DIR=$(CURDIR)/$(B)/bin NAS_SOAK_ROUNDS=50 $(B)/tests/search --filter 'search_kill/*' --timeout 3600
golden: ## rewrite the golden files of the tests (review the diff)
	$(Q)NAS_GOLDEN_WRITE=1 $(MAKE) --no-print-directory check-compiler check-search

# Agents for devices: static, stripped, at most 250 KB, without the system's C library (scripts/agents.sh).
agents: ## static nas-agent for aarch64, armv7, riscv64, x86_64 in build/agents (ANDROID_NDK_HOME: Android's NDK)
	$(Q)BUILD=$(BUILD) WERROR=$(WERROR) scripts/agents.sh $(AGENT_ARCHS)

lint: ## formatter in check mode, layers, banned calls, static analysis
	$(Q)scripts/lint.sh
fmt: ## format the sources
	$(Q)clang-format -i $$(git ls-files '*.c' '*.h' ':!tests/compiler/golden')
clean: ## remove everything built
	rm -rf $(BUILD)

.SECONDARY:
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
