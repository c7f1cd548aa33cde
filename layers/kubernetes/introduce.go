package kubernetes

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/cluster/merge/introduction"
)

// Side is a blueprint's cluster that is to become one with another's.
type Side struct {
	Plan    *plan.Plan
	Cluster string
	ID      *secrets.Cluster
}

// Introduce returns, for the nodes of each side, the file that tells them of the
// other, as of now. Those of the guest get certificates of the host's identity,
// for the keys that they have.
func Introduce(host, guest Side, now time.Time) (forHost, forGuest []byte, err error) {
	if err := mayMeet(host, guest); err != nil {
		return nil, nil, err
	}
	ca, err := host.ID.Authority("kubernetes", clusterAuthority)
	if err != nil {
		return nil, nil, err
	}
	theirs, err := guest.ID.Authority("kubernetes", clusterAuthority)
	if err != nil {
		return nil, nil, err
	}
	told := introduction.Introduction{
		Cluster: host.Cluster, Issued: now.Unix(), Authority: decodePEM(ca.Certificate()),
		Cubes: slices.Concat(host.cubes(), guest.cubes()),
	}
	if forHost, err = seal(told, ca); err != nil {
		return nil, nil, err
	}
	told.Cluster, told.Certificates, told.Admins = guest.Cluster, map[string][]byte{}, map[string][]byte{}
	for _, n := range guest.nodes() {
		if told.Certificates[n.Name], err = reissue(nodeRequest(n.Name), theirs, ca); err != nil {
			return nil, nil, err
		}
		if n.Role != plan.RoleControlPlane {
			continue
		}
		if told.Admins[n.Name], err = reissue(adminRequest("picube:"+n.Name), theirs, ca); err != nil {
			return nil, nil, err
		}
	}
	forGuest, err = seal(told, theirs)
	return forHost, forGuest, err
}

// reissue returns another authority's certificate (DER) for the key of one that
// an authority issued.
func reissue(r secrets.Request, old, ca *secrets.Authority) ([]byte, error) {
	pair, err := old.Issue(r)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(decodePEM(pair.Certificate))
	if err != nil {
		return nil, err
	}
	certificate, err := ca.Certify(r, c.PublicKey.(*ecdsa.PublicKey))
	return decodePEM(certificate), err
}

func seal(i introduction.Introduction, signer *secrets.Authority) ([]byte, error) {
	text, err := signer.Key()
	if err != nil {
		return nil, err
	}
	key, err := x509.ParseECPrivateKey(decodePEM(text))
	if err != nil {
		return nil, err
	}
	return introduction.Seal(i, key)
}

// decodePEM returns what is in PEM of this program's own.
func decodePEM(text []byte) []byte {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	return block.Bytes
}

func (s Side) nodes() []*plan.Node {
	return slices.DeleteFunc(s.Plan.Nodes(), func(n *plan.Node) bool { return n.Cluster != s.Cluster })
}

// cubes are those with clusters of their own; where all begin one, it is the
// cube where its control plane is.
func (s Side) cubes() []introduction.Cube {
	var cubes []introduction.Cube
	add := func(name, home string) {
		c := introduction.Cube{Name: name}
		for _, n := range s.nodes() {
			m := introduction.Member{Name: n.Name, Address: n.Address.Addr().String()}
			switch {
			case n.Home != home:
			case n.Role == plan.RoleControlPlane:
				c.ControlPlane = append(c.ControlPlane, m)
			case n.Role == plan.RoleWorker:
				c.Workers = append(c.Workers, m)
			}
		}
		cubes = append(cubes, c)
	}
	for _, c := range s.Plan.Beginners(s.Cluster) {
		add(c.Spec.Name, c.Spec.Name)
	}
	if all := s.Plan.ControlPlane(s.Cluster, ""); cubes == nil && len(all) > 0 {
		add(all[0].Cube, "")
	}
	return cubes
}

// mayMeet lists why two clusters can't become one.
func mayMeet(host, guest Side) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	same := func(purpose string, a, b any) {
		if a != b {
			wrong("%s: cannot be %v in %s and %v in %s", purpose, a, host.Plan.Blueprint, b, guest.Plan.Blueprint)
		}
	}
	if slices.Equal(host.ID.Bytes(16, "introduction"), guest.ID.Bytes(16, "introduction")) {
		return errors.New("cannot introduce an identity to itself: both blueprints have the same")
	}
	a, b := host.first(), guest.first()
	same("network", a.Spec.Network.Prefix, b.Spec.Network.Prefix)
	same("kubernetes version", a.Spec.Kubernetes.Version, b.Spec.Kubernetes.Version)
	same("pod_subnet", a.Spec.Kubernetes.PodSubnet, b.Spec.Kubernetes.PodSubnet)
	same("service_subnet", a.Spec.Kubernetes.ServiceSubnet, b.Spec.Kubernetes.ServiceSubnet)
	taken := map[string]bool{}
	for _, n := range host.nodes() {
		taken[n.Name], taken[n.Address.Addr().String()], taken["cube "+n.Cube] = true, true, true
	}
	cubes := map[string]bool{}
	for _, n := range guest.nodes() {
		if taken["cube "+n.Cube] && !cubes[n.Cube] {
			cubes[n.Cube] = true
			wrong("cube %s: cannot be in both blueprints", n.Cube)
		}
		if taken[n.Name] {
			wrong("node %s: cannot be in both blueprints", n.Name)
		}
		if address := n.Address.Addr().String(); taken[address] {
			wrong("node %s: cannot have the address %s, which %s gives to another one; a cube's number says it", n.Name, address, host.Plan.Blueprint)
		}
	}
	return errors.Join(errs...)
}

// Cube is the name of the side's first cube, which the other side does not have.
func (s Side) Cube() string { return s.first().Spec.Name }

// first is the first cube of the cluster.
func (s Side) first() *plan.Cube {
	i := slices.IndexFunc(s.Plan.Cubes, func(c *plan.Cube) bool { return c.Spec.Cluster == s.Cluster })
	return s.Plan.Cubes[i]
}
