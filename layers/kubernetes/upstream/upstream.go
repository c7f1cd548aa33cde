// Package upstream gets Kubernetes: the programs that a node runs and the
// images of its control plane, from the upstream release, a mirror of it, or
// compiled from the published Go modules.
package upstream

import (
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/picube/picube-build/builder/containerd"
)

// Registry is where upstream publishes images. They keep its name wherever
// they come from: kubeadm asks for them.
const (
	module   = "k8s.io/kubernetes"
	Registry = "registry.k8s.io"
)

// Release is a version of Kubernetes with the versions that belong to it.
type Release struct {
	Version string // "v1.34.4"
	Etcd    string // "3.6.5-0", the image's tag
	CoreDNS string // "v1.12.1"
	Pause   string // "3.10.1"
}

// Image names as kubeadm composes them.
func (r Release) image(name string) string {
	switch name {
	case "etcd":
		return Registry + "/etcd:" + r.Etcd
	case "coredns":
		return Registry + "/coredns/coredns:" + r.CoreDNS
	case "pause":
		return r.PauseImage()
	}
	return Registry + "/" + name + ":" + r.Version
}

// PauseImage is the image that containerd must be told of.
func (r Release) PauseImage() string { return Registry + "/pause:" + r.Pause }

// EtcdImage is the image with etcd and its tools.
func (r Release) EtcdImage() string { return r.image("etcd") }

// controlPlaneImages and nodeImages are the images by the nodes that need
// them: DNS may run anywhere.
func controlPlaneImages() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"}
}

func nodeImages() []string { return []string{"coredns", "pause"} }

// nodePrograms run on the nodes themselves.
func nodePrograms() []string { return []string{"kubeadm", "kubelet", "kubectl", "kube-proxy"} }

// Set is everything of Kubernetes that cards of one architecture hold.
type Set struct {
	Release      Release
	Programs     map[string]string // host file by name: kubeadm, kubelet, kubectl, kube-proxy
	ControlPlane []containerd.Image
	Node         []containerd.Image
}

// constants is where kubeadm says what belongs to a release: it is the only
// place where upstream does.
const constants = "cmd/kubeadm/app/constants/constants.go"

// versions reads the text of that file.
func versions(text []byte, version string) (Release, error) {
	r := Release{Version: version}
	var missing []string
	for _, c := range []struct {
		name string
		dst  *string
	}{
		{"DefaultEtcdVersion", &r.Etcd},
		{"CoreDNSVersion", &r.CoreDNS},
		{"PauseVersion", &r.Pause},
	} {
		m := regexp.MustCompile(`(?m)^\s*` + c.name + `\s*=\s*"([^"]+)"`).FindSubmatch(text)
		if m == nil {
			missing = append(missing, c.name)
			continue
		}
		*c.dst = string(m[1])
	}
	if len(missing) > 0 {
		return Release{}, fmt.Errorf("cannot find %s in %s", strings.Join(missing, ", "), constants)
	}
	return r, nil
}

// ErrVersion says that no source has a version.
type ErrVersion struct {
	Version string
	Nearest []string
}

func (e *ErrVersion) Error() string {
	msg := fmt.Sprintf("Kubernetes %s: cannot find this version", e.Version)
	if len(e.Nearest) > 0 {
		msg += "; the nearest ones are " + strings.Join(e.Nearest, ", ")
	}
	return msg
}

// choose picks the version among all published ones, pre-releases left out,
// and names those near it.
func choose(all []string, version string) (exact string, nearest []string) {
	newest := map[string]string{} // by minor version
	for _, v := range all {
		if semver.Prerelease(v) != "" {
			continue
		}
		if v == version {
			exact = v
		}
		if minor := semver.MajorMinor(v); semver.Compare(v, newest[minor]) > 0 {
			newest[minor] = v
		}
	}
	if exact == "" && version == semver.MajorMinor(version) {
		exact = newest[version]
	}
	if exact != "" {
		return exact, nil
	}
	if v := newest[semver.MajorMinor(version)]; v != "" {
		return "", []string{v}
	}
	for _, v := range newest {
		nearest = append(nearest, v)
	}
	semver.Sort(nearest)
	return "", nearest[max(0, len(nearest)-3):]
}
