package merged

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/cluster/merge/announce"
	"github.com/picube/picube-build/layers/cluster/merge/introduction"
)

// authority is that of a blueprint's identity.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// card is what a control-plane node has of its own, and whom it believes.
type card struct {
	own   authority
	leaf  *x509.Certificate
	key   *ecdsa.PrivateKey
	trust announce.Trust
}

// believes reports whether a cube takes another one's word for a record.
func (c *cube) believes(other *cube, r merge.Record) error {
	if c.card == nil {
		return nil
	}
	packet, err := announce.Seal(r, other.card.leaf, other.card.key)
	if err != nil {
		return err
	}
	_, err = c.card.trust.Open(packet)
	return err
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	a.certificate = a.issue(t, "kubernetes", &a.key.PublicKey)
	return a
}

func (a authority) issue(t *testing.T, name string, key *ecdsa.PublicKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	parent := a.certificate
	if parent == nil {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// withIdentities gives each cube an identity of its own.
func (w *world) withIdentities() {
	for _, c := range w.cubes {
		own, key := newAuthority(w.t), newKey(w.t)
		c.card = &card{own: own, key: key, leaf: own.issue(w.t, introduction.NodeUser(c.nodes[0].Name), &key.PublicKey)}
		c.card.believe(c.name)
	}
}

// believe has a card believe the control planes of cubes that its authorities
// vouch for.
func (c *card) believe(cubes ...string) {
	c.trust = announce.Trust{Authority: x509.NewCertPool(), Now: time.Now, CubeOf: func(leaf *x509.Certificate) string {
		i := slices.IndexFunc(cubes, func(name string) bool { return leaf.Subject.CommonName == introduction.NodeUser(name+"1") })
		if i < 0 {
			return ""
		}
		return cubes[i]
	}}
	c.trust.Authority.AddCert(c.own.certificate)
}

// introduce puts an introduction of two cubes, signed with a key, on the cards of
// one of them, as the node reads it.
func (w *world) introduce(to, host, guest string, signer *ecdsa.PrivateKey) error {
	c, h, g := w.cube(to), w.cube(host), w.cube(guest)
	said := introduction.Introduction{Cluster: to, Authority: h.card.own.certificate.Raw, Cubes: []introduction.Cube{
		{Name: host, ControlPlane: []introduction.Member{{Name: host + "1", Address: "10.42.1.1"}}},
		{Name: guest, ControlPlane: []introduction.Member{{Name: guest + "1", Address: "10.42.2.1"}}},
	}}
	if to == guest {
		name := guest + "1"
		said.Certificates = map[string][]byte{name: h.card.own.issue(w.t, introduction.NodeUser(name), &g.card.key.PublicKey).Raw}
	}
	file, err := introduction.Seal(said, signer)
	if err != nil {
		return err
	}
	if said, err = introduction.Open(file, c.card.own.certificate); err != nil {
		return err
	}
	der, err := introduction.Certificate(said.Certificates, to+"1", &c.card.key.PublicKey)
	if err != nil {
		return err
	}
	c.card.believe(host, guest)
	if der != nil {
		if c.card.leaf, err = x509.ParseCertificate(der); err != nil {
			return err
		}
		c.card.trust.Authority.AddCert(h.card.own.certificate)
	}
	settings := c.controller.Settings
	settings.Hosts = []string{host}
	if c.off == nil {
		c.controller.Settings = settings
		return nil
	}
	c.off()
	w.sleep(time.Second)
	c.begin(settings)
	return nil
}

// Cubes of two identities are one if both were introduced, and only then. The
// host leads, though the guest is the elder one; an undo parts them again.
func TestIntroduced(t *testing.T) {
	both := []string{"guest", "host"}
	for name, test := range map[string]struct {
		told   []string // who gets the file
		forged bool     // signed by somebody else
		one    bool
	}{
		"not introduced":    {},
		"introduced":        {told: both, one: true},
		"by somebody else":  {told: both, forged: true},
		"the host alone":    {told: both[1:]},
		"the guest alone":   {told: both[:1]},
		"the host too late": {told: both[:1], one: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, end := newWorld(t, "guest", "host")
				defer end()
				w.withIdentities()
				tell := func(to string) {
					signer := w.cube(to).card.own.key
					if test.forged {
						signer = newKey(t)
					}
					if err := w.introduce(to, "host", "guest", signer); (err != nil) != test.forged {
						t.Fatal(err)
					}
				}
				for _, to := range test.told {
					tell(to)
				}
				w.start()
				w.sleep(time.Hour)
				if test.one && len(test.told) < 2 {
					tell("host")
					w.sleep(time.Hour)
				}
				slices.Reverse(w.cubes) // for isOne: the first one leads
				if err := w.isOne(); (err == nil) != test.one {
					t.Fatalf("they are one: %v (%v)", err == nil, err)
				}
				guest, host := w.cube("guest"), w.cube("host")
				if test.one {
					guest.nodes[0].order = merge.Undo
					w.sleep(10 * time.Minute)
				}
				for _, c := range []*cube{guest, host} {
					r := c.store.kept.Record
					if r.Phase != merge.Alone && r.Phase != merge.Asking || c.store.frozen || r.Hold != (test.one && c == guest) {
						t.Errorf("%s: %+v", c.name, r)
					}
					for _, n := range c.nodes {
						if n.member.Cluster != "id-"+c.name {
							t.Errorf("%s is of %s", n.Name, n.member.Cluster)
						}
					}
				}
				if !test.one && len(host.store.objects) != 1 {
					t.Errorf("the host has %v", host.store.objects)
				}
			})
		})
	}
}
