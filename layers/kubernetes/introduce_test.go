package kubernetes

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/cluster/merge/introduction"
	"github.com/picube/picube-build/layers/kubernetes/kubeadmd"
	"github.com/picube/picube-build/layers/nodeconf"
)

// twoSides are two clusters of two nodes that were built apart.
func twoSides(t *testing.T) (host, guest Side) {
	t.Helper()
	for i, s := range []*Side{&host, &guest} {
		p := twoNodes()
		id, err := secrets.Open(t.TempDir(), bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 32))).Cluster("picube")
		if err != nil {
			t.Fatal(err)
		}
		p.Blueprint = []string{"home", "friend"}[i]
		*s = Side{p, "picube", id}
	}
	guest.Plan.Cubes[0].Spec.Name = "friend"
	for _, n := range guest.nodes() {
		n.Name, n.Cube, n.Address = "friend-"+n.Name[3:], "friend", netip.MustParsePrefix("10.42.2."+n.Name[3:]+"/16")
	}
	return host, guest
}

func TestIntroduce(t *testing.T) {
	host, guest := twoSides(t)
	issued := time.Unix(1_790_000_000, 0)
	forHost, forGuest, err := Introduce(host, guest, issued)
	if err != nil {
		t.Fatal(err)
	}
	authority := func(s Side) *x509.Certificate {
		ca, err := s.ID.Authority("kubernetes", clusterAuthority)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(decode(t, ca.Certificate()))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	i, err := introduction.Open(forHost, authority(host))
	if err != nil || len(i.Certificates)+len(i.Admins) != 0 || len(i.Cubes) != 2 || i.Cubes[1].ControlPlane[0].Name != "friend-1" || i.Cubes[1].Workers[0].Address != "10.42.2.2" {
		t.Errorf("for the host: %+v, %v", i, err)
	}
	for _, file := range [][]byte{forHost, forGuest} {
		if bytes.Contains(file, []byte("PRIVATE")) {
			t.Error("a key is in an introduction")
		}
	}
	if _, err := introduction.Open(forGuest, authority(host)); err == nil {
		t.Error("the host's nodes believe what is for the guest's")
	}
	if i, err = introduction.Open(forGuest, authority(guest)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(i.Authority, authority(host).Raw) || len(i.Certificates) != 2 || len(i.Admins) != 1 {
		t.Errorf("for the guest: %d certificates, %d administrators", len(i.Certificates), len(i.Admins))
	}
	// The certificates fit the keys that lie on the guest's cards.
	l := testLayer(t)
	l.Identity = func(string) (*secrets.Cluster, error) { return guest.ID, nil }
	l.Introductions = func(string) (map[string][]byte, error) { return map[string][]byte{"picube": forGuest}, nil }
	for _, n := range guest.nodes() {
		files, _ := card(t, l, guest.Plan, n)
		if !bytes.Equal(files["/picube/introduction-picube.bin"], forGuest) {
			t.Errorf("the card of %s is built without it", n.Name)
		}
		for at, all := range map[string]map[string][]byte{kubeadmd.NodeKey: i.Certificates, kubeadmd.AdminKey: i.Admins} {
			if files[at] == nil {
				continue
			}
			key, err := x509.ParseECPrivateKey(decode(t, files[at]))
			if err != nil {
				t.Fatal(err)
			}
			if der, err := introduction.Certificate(all, n.Name, key.Public().(*ecdsa.PublicKey)); der == nil || err != nil {
				t.Errorf("%s: %s: %v", n.Name, at, err)
			}
		}
		if n.Role != plan.RoleControlPlane && i.Admins[n.Name] != nil {
			t.Errorf("the worker %s may administer", n.Name)
		}
	}
}

func TestIntroductionOfAnotherIdentity(t *testing.T) {
	host, guest := twoSides(t)
	_, forGuest, err := Introduce(host, guest, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	l := testLayer(t)
	l.Introductions = func(string) (map[string][]byte, error) { return map[string][]byte{"home": forGuest}, nil }
	err = l.Node(host.Plan, host.nodes()[0], &nodeconf.Node{}, tree.New(0))
	if !errors.Is(err, introduction.ErrStranger) || !strings.Contains(err.Error(), `introduction to "home"`) {
		t.Errorf("%v", err)
	}
}

func TestWhoCannotMeet(t *testing.T) {
	host, guest := twoSides(t)
	issued := time.Unix(1_790_000_000, 0)
	if _, _, err := Introduce(host, host, issued); err == nil || !strings.Contains(err.Error(), "to itself") {
		t.Errorf("the same: %v", err)
	}
	guest.Plan.Cubes[0].Spec.Kubernetes.Version = "1.35.0"
	guest.nodes()[0].Name = "rpi1"
	guest.nodes()[1].Address = netip.MustParsePrefix("10.42.1.2/16")
	_, _, err := Introduce(host, guest, issued)
	for _, want := range []string{
		"kubernetes version: cannot be 1.34.4 in home and 1.35.0 in friend", "node rpi1: cannot be in both",
		"node friend-2: cannot have the address 10.42.1.2",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}
