# The laboratory: emulated hypervisors (tests/lab). Images are kept in $LAB_CACHE, else ~/.cache/libvirt-tuner-lab.
#   make lab RELEASE=trixie ARGS='-k bench'
#   make lab RELEASE="bookworm trixie" SCENARIOS=

RELEASE ?= bookworm
# What is measured, and what takes long, is marked: "not measured and not thorough"; empty: everything there is.
SCENARIOS ?= not thorough
LAB = $(BIN)/python -m tests.lab
LAB_READY := $(VENV)/.lab-ready
# Root builds in the cache of who calls make, not in its own.
LAB_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/libvirt-tuner-lab
export LAB_CACHE

.PHONY: lab lab-image lab-shell lab-clean testbed

$(LAB_READY): $(READY) tests/lab/lab.mk
	tests/setup-system ca-certificates debian-archive-keyring debootstrap e2fsprogs iperf3 qemu-utils $(DEB_NEEDS)
	touch $@

lab: lab-image ## Scenarios on an emulated hypervisor (RELEASE="bookworm trixie", ARGS='-k NAME')
	$(BIN)/python -m pytest tests/lab -q --capture=sys $(RELEASE:%=--release=%) -m '$(SCENARIOS)' $(ARGS)

lab-image: $(LAB_READY) ## The images of the laboratory; what is missing is built with debootstrap (root or sudo)
	$(LAB) image $(RELEASE) $(if $(AS_ROOT),|| $(AS_ROOT) LAB_CACHE="$(LAB_CACHE)" LAB_MIRROR="$(LAB_MIRROR)" $(LAB) image $(RELEASE))

lab-shell: lab-image ## A prompt in an emulated hypervisor with this tree installed
	$(LAB) shell $(firstword $(RELEASE))

testbed: lab-image ## Two emulated hypervisors with bond, geneve and ESP, and a VM on each
	$(LAB) testbed $(firstword $(RELEASE))

lab-clean: ## Remove the images and saved states of the laboratory
	$(AS_ROOT) rm -rf $(foreach kind,image-* base-* packages-* debootstrap-* *.lock,"$(LAB_CACHE)"/$(kind))
