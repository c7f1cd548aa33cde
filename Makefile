# make test   everything that must hold, with the tools that the tests need
# make bench  how long the main job takes
# make tools  only install the tools

SHELL := /bin/bash
export PATH := $(PATH):/usr/sbin:/sbin

# program:package for every program that a test calls as a second opinion.
TOOLS := bmaptool:bmap-tools containerd:containerd cpio:cpio dash:dash depmod:kmod dpkg-deb:dpkg \
	dtc:device-tree-compiler e2fsck:e2fsprogs fsck.vfat:dosfstools \
	journalctl:systemd ldconfig:libc-bin mmdebstrap:mmdebstrap mtype:mtools \
	openssl:openssl qemu-img:qemu-utils qemu-system-aarch64:qemu-system-arm \
	sfdisk:fdisk ssh:openssh-client systemd-hwdb:udev tcpdump:tcpdump \
	wpa_passphrase:wpasupplicant xz:xz-utils zstd:zstd

LINT := go tool -modfile=tools/golangci-lint/go.mod golangci-lint

.PHONY: test tools vet lint cross unit long judge broad bases hardware cluster cluster-faults cluster-merge handover bench bench-tools

# With CI=true the cards boot too, dpkg itself installs what the builder does, and
# two cards become a cluster, for which Kubernetes is compiled: most of an hour.
test: tools vet lint cross unit $(if $(filter true,$(CI)),long judge cluster)

define install
	@missing=(); for tool in $(1); do \
		command -v "$${tool%%:*}" >/dev/null || missing+=("$${tool#*:}"); \
	done; \
	if (( $${#missing[@]} )); then \
		echo "missing: $${missing[*]}"; \
		sudo=; if (( EUID )); then sudo=sudo; fi; \
		$$sudo apt-get update -q && \
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$${missing[@]}"; \
	fi; \
	for tool in $(1); do \
		command -v "$${tool%%:*}" >/dev/null || { echo "cannot find $${tool%%:*} (package $${tool#*:})"; exit 1; }; \
	done
endef

tools:
	$(call install,$(TOOLS))

vet:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [[ $$unformatted ]]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags long ./...
	go vet -tags judge ./builder/judge
	go vet -tags broad ./cmd/picube-build
	go vet -tags bases ./cmd/picube-build
	go vet -tags cluster ./cmd/picube-build
	go vet -tags hardware ./cmd/picube-build
	go vet -tags handover ./layers/kubernetes/kubeadmd

lint:
	$(LINT) run ./...

# The builder runs on every desktop, the node program on every Pi.
cross:
	GOOS=darwin go build -o /dev/null ./cmd/picube-build
	GOOS=windows go build -o /dev/null ./cmd/picube-build
	GOARCH=arm64 CGO_ENABLED=0 go build -o /dev/null ./cmd/picube-node
	GOARCH=arm GOARM=7 CGO_ENABLED=0 go build -o /dev/null ./cmd/picube-node

unit:
	go test ./...

long:
	go test -tags long -timeout 120m -p 1 ./...

# dpkg, under mmdebstrap, and our engine install the same packages: about ten
# minutes. Files get their owners only from root. For another architecture, by
# qemu-user in hours: -args -arch arm64 -drop=false.
judge:
	go test -tags judge -timeout 60m -v -run TestLists $(if $(filter-out 0,$(shell id -u)),-exec 'sudo -E') ./builder/judge

# A card with 560 packages, some of which only its first boot can configure,
# and the power fails meanwhile: half an hour.
broad:
	go test -tags broad -timeout 90m -v -run TestBroadCard ./cmd/picube-build

# A Raspberry Pi 2, cards on other people's images, and on Raspberry Pi's kernel.
# mmdebstrap makes the images under qemu-user, once: half an hour, later twenty
# minutes. Files get their owners only from root.
bases:
	$(call install,debugfs:e2fsprogs mcopy:mtools mmdebstrap:mmdebstrap qemu-aarch64-static:qemu-user-static \
		qemu-system-aarch64:qemu-system-arm sfdisk:fdisk zstd:zstd)
	go test -tags bases -timeout 120m -v -run 'TestRaspberryPi2|TestImages|TestRaspios' $(if $(filter-out 0,$(shell id -u)),-exec 'sudo -E') ./cmd/picube-build

# Radios, five clocks, and what hangs on a Pi 3's pins, whose controllers QEMU
# 10 has (QEMU= is the folder of its programs, if they are not in the path): twenty
# minutes.
hardware:
	$(call install,fdtoverlay:device-tree-compiler mcopy:mtools qemu-system-aarch64:qemu-system-arm)
	go test -tags hardware -timeout 60m -v -run TestHardware ./cmd/picube-build $(if $(QEMU),-args -qemu '$(QEMU)')

# On a host too small for the nodes of a test below, SLOW=3 lets their clocks run
# at a third of its own (tools/slow).
slowly = $(if $(SLOW),PICUBE_SLOW='$(SLOW)' PATH="$(CURDIR)/tools/slow:$$PATH")
slow_tools = $(if $(SLOW),$(call install,faketime:faketime qemu-system-aarch64:qemu-system-arm))

# Two cards become a Kubernetes cluster, which has to work: seven minutes on two
# quiet cores, and ten to compile it.
cluster:
	$(slow_tools)
	$(slowly) go test -tags cluster -timeout 80m -v -run 'TestCluster$$' ./cmd/picube-build

# The same with what homes do to it, and with a control plane of three: hours.
# PART=OfThree takes only the tests whose name goes on with that; two cores need
# SLOW=3 for it, and 75 minutes.
cluster-faults:
	$(slow_tools)
	$(slowly) go test -tags cluster -timeout 8h -v -run 'TestCluster$(or $(PART),.+)' ./cmd/picube-build

# Two cubes that run become one, and what is done to them meanwhile: hours.
# PART="together" takes only the parts whose name has that in it.
cluster-merge:
	$(slow_tools)
	$(slowly) go test -tags cluster -timeout 12h -v -run 'TestMerge/$(PART)' ./cmd/picube-build

# What a merge does to users' objects, with two real API servers, which are
# compiled for this machine first.
handover:
	go test -tags handover -timeout 60m -v -run TestHandOverReal ./layers/kubernetes/kubeadmd

# The builds fill the cache of downloads first; 40 GB of disk are needed.
# STATES="cold,nothing" takes only those that begin so.
bench: tools
	go test -run '^$$' -bench Write -benchtime 5x ./builder/ext4
	go run ./tools/bench -states '$(STATES)'
