package kubeadmd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge/introduction"
	"github.com/picube/picube-build/layers/nodeconf"
)

// A node that was introduced to clusters of another identity keeps what came with
// its card: its own cluster's authorities, its certificates and its keys. A guest
// has a second set of certificates beside them, of the host's identity and for
// the same keys. By which of the two it speaks depends on whom it speaks to and
// on whose cluster it works for, which its membership says; so there is nothing
// to exchange when it leaves, and nothing to put back when it comes home.
//
// Only the introductions themselves are kept. Whatever else there is of them is
// made anew at each start.
const (
	introductionsDir = stateDir + "/introductions"
	// byHost is the file of the one that makes the node a guest. Others have the
	// name of a cube, which can't begin so.
	byHost = "_host.bin"

	introducedDir         = "/etc/kubernetes/picube/introduced"
	introducedAuthority   = introducedDir + "/ca.crt"
	introducedCertificate = introducedDir + "/node.crt"
	introducedAdmin       = introducedDir + "/admin.crt"

	introductionPath = "/introduction"
)

// inCommon is the name by which a node of another identity is called (TLS, server
// name indication): then a guest shows the certificate of the identity that both
// have.
const inCommon = "introduced.picube"

// identity is by whose word a node knows others, and what it is known by itself:
// files of certificates, for keys that are the node's in either case.
type identity struct{ authority, node, admin string }

func ownIdentity() identity {
	return identity{AuthorityCertificate, NodeCertificate, AdminCertificate}
}

func hostIdentity() identity {
	return identity{introducedAuthority, introducedCertificate, introducedAdmin}
}

// introduced is what a node makes of an introduction.
type introduced struct {
	introduction.Introduction
	data    []byte
	file    string
	own     []Cube // the blueprint's
	foreign []introduction.Cube
	// host is the other identity's authority if this node's gives way to it, with
	// the node's certificates of it.
	host        *x509.Certificate
	node, admin []byte
}

func (i introduced) String() string {
	var names []string
	for _, c := range i.foreign {
		names = append(names, c.Name)
	}
	if i.host != nil {
		return "introduced to the cluster of " + strings.Join(names, ", ") + " as a guest"
	}
	return "introduced to the cluster of " + strings.Join(names, ", ")
}

// introduce makes known what the node was told before. An introduction that
// can't be used any more is as good as none.
func (e *Engine) introduce() error {
	all, err := e.introductions()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		i := all[name]
		e.kept = append(e.kept, i.data)
		if len(e.Config.Cubes) == 0 {
			e.Config.Cubes, e.Config.Home = i.own, i.own[0].Name
			if e.Config.Merge.Mode == "" {
				e.Config.Merge.Mode = "auto"
			}
		}
		if i.host != nil {
			e.host = i.host
		}
		for _, c := range i.foreign {
			if slices.ContainsFunc(e.Config.Cubes, func(o Cube) bool { return o.Name == c.Name }) {
				continue
			}
			e.foreign = append(e.foreign, c)
			e.Config.Cubes = append(slices.Clone(e.Config.Cubes), Cube{c.Name, members(c.ControlPlane)})
			for _, m := range c.ControlPlane {
				e.Node.Peers = append(slices.Clone(e.Node.Peers), nodeconf.Peer{Name: m.Name, Address: m.Address, Cube: c.Name, Role: "control-plane"})
			}
			for _, m := range c.Workers {
				e.Node.Peers = append(slices.Clone(e.Node.Peers), nodeconf.Peer{Name: m.Name, Address: m.Address, Cube: c.Name, Role: "worker"})
			}
		}
	}
	return err
}

func members(list []introduction.Member) []Member {
	var out []Member
	for _, m := range list {
		out = append(out, Member(m))
	}
	return out
}

// introductions are those that the node keeps, by file name, but for those that
// are damaged.
func (e *Engine) introductions() (map[string]introduced, error) {
	entries, err := os.ReadDir(filepath.Join(e.Root, introductionsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	all := map[string]introduced{}
	errs := []error{err}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".bin") {
			continue // half of one, when a plug was pulled
		}
		data, err := introduction.ReadFile(filepath.Join(e.Root, introductionsDir, entry.Name()))
		if err == nil {
			var i introduced
			if i, err = e.read(data); err == nil && i.file == entry.Name() {
				all[i.file] = i
			}
		}
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

// read checks an introduction and finds out what it says to this node.
func (e *Engine) read(data []byte) (introduced, error) {
	authority, err := e.certificate(AuthorityCertificate)
	if err != nil {
		return introduced{}, err
	}
	told, err := introduction.Open(data, authority)
	if err != nil {
		return introduced{}, err
	}
	i := introduced{Introduction: told, data: data, own: e.Config.Cubes[:len(e.Config.Cubes)-len(e.foreign)]}
	if told.Cluster != e.Node.Cluster {
		return i, fmt.Errorf("introduction: it is for nodes of the cluster %q", told.Cluster)
	}
	home := e.Config.Home
	if len(i.own) == 0 {
		at := slices.IndexFunc(told.Cubes, func(c introduction.Cube) bool { return slices.Equal(members(c.ControlPlane), e.Config.ControlPlane) })
		if at >= 0 {
			home = told.Cubes[at].Name
			i.own = []Cube{{home, e.Config.ControlPlane}}
		}
	}
	if !slices.ContainsFunc(told.Cubes, func(c introduction.Cube) bool { return home != "" && c.Name == home }) {
		return i, errors.New("introduction: it knows another control plane here; make a new one")
	}
	for _, c := range told.Cubes {
		if !slices.ContainsFunc(i.own, func(o Cube) bool { return o.Name == c.Name }) {
			i.foreign = append(i.foreign, c)
		}
	}
	if len(i.foreign) == 0 {
		return i, errors.New("introduction: it names no other cluster")
	}
	i.file = i.foreign[0].Name + ".bin"
	return i, errors.Join(e.checkForeign(i.foreign), e.readHost(&i, authority))
}

// checkForeign lists nodes of others that have the name or the address of one of
// the blueprint's.
func (e *Engine) checkForeign(cubes []introduction.Cube) error {
	var errs []error
	for _, c := range cubes {
		for _, m := range slices.Concat(c.ControlPlane, c.Workers) {
			if slices.ContainsFunc(e.Node.Peers, func(p nodeconf.Peer) bool {
				return !e.isForeign(p.Name) && (p.Name == m.Name || p.Address == m.Address)
			}) {
				errs = append(errs, fmt.Errorf("introduction: node %s, %s: there is one of this name or address here", m.Name, m.Address))
			}
		}
	}
	return errors.Join(errs...)
}

// readHost takes out of an introduction what makes the node a guest, if it does.
func (e *Engine) readHost(i *introduced, own *x509.Certificate) error {
	if bytes.Equal(i.Authority, own.Raw) {
		return nil
	}
	host, err := x509.ParseCertificate(i.Authority)
	if err != nil {
		return err
	}
	if e.Now().After(host.NotAfter) {
		return fmt.Errorf("introduction: expired on %s", host.NotAfter.Format(time.DateOnly))
	}
	i.host, i.file = host, byHost
	if i.node, err = e.own(i.Certificates, NodeKey); err != nil {
		return err
	}
	if slices.ContainsFunc(i.own, func(c Cube) bool {
		return slices.ContainsFunc(c.ControlPlane, func(m Member) bool { return m.Name == e.Node.Hostname })
	}) {
		i.admin, err = e.own(i.Admins, AdminKey)
	}
	return err
}

// own returns the node's certificate among all, for a key that it has.
func (e *Engine) own(all map[string][]byte, keyFile string) ([]byte, error) {
	key, err := e.key(keyFile)
	if err != nil {
		return nil, err
	}
	der, err := introduction.Certificate(all, e.Node.Hostname, key.Public().(*ecdsa.PublicKey))
	if err == nil && der == nil {
		err = fmt.Errorf("introduction: it has no certificate for %s", e.Node.Hostname)
	}
	return der, err
}

// key reads one of the keys that came with the card.
func (e *Engine) key(name string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(filepath.Join(e.Root, name))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: cannot find a key in it", name)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// TakeIntroduction keeps an introduction if it is for this node and new. It
// returns what it says, empty if that was known; the node has to begin anew with
// it. What is refused changes nothing.
func (e *Engine) TakeIntroduction(data []byte) (string, error) {
	e.taking.Lock()
	defer e.taking.Unlock()
	i, err := e.read(data)
	if err != nil {
		return "", err
	}
	all, _ := e.introductions() // a damaged one is replaced
	old, known := all[i.file]
	if known && old.Issued >= i.Issued {
		return "", nil
	}
	cubes := slices.Clone(i.own)
	for file, other := range all {
		if file != i.file && (i.host != nil || other.host != nil) {
			return "", fmt.Errorf("introduction: cannot be a host and a guest at once: it was %s", other)
		}
		if file != i.file {
			for _, c := range other.foreign {
				cubes = append(cubes, Cube{Name: c.Name})
			}
		}
	}
	for _, c := range i.foreign {
		cubes = append(cubes, Cube{Name: c.Name})
	}
	m, err := e.membership()
	if err != nil {
		return "", err
	}
	stays := slices.ContainsFunc(cubes, func(c Cube) bool { return c.Name == m.Cube || m.Cube == "" })
	if away := m.Cluster != m.Home; away && (!stays || known && i.host != nil && !old.host.Equal(i.host)) {
		return "", fmt.Errorf("introduction: the node is of the cluster of %s, which this one does not know", m.Cube)
	}
	if err := e.write(filepath.Join(introductionsDir, i.file), data); err != nil {
		return "", err
	}
	return i.String(), syncDir(filepath.Join(e.Root, introductionsDir))
}

// Introduced are the introductions that hold, in words, and why others that are
// kept do not.
func (e *Engine) Introduced() ([]string, error) {
	all, err := e.introductions()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[name].String())
	}
	return out, err
}

// installHost writes the certificates of the host's identity to where programs
// look for them.
func (e *Engine) installHost() error {
	all, _ := e.introductions()
	i, ok := all[byHost]
	if !ok {
		return nil
	}
	var errs []error
	for name, der := range map[string][]byte{introducedAuthority: i.Authority, introducedCertificate: i.node, introducedAdmin: i.admin} {
		if der != nil {
			errs = append(errs, e.write(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
		}
	}
	return errors.Join(errs...)
}

// change writes what the programs of a guest run with in the cluster that it
// enters, before it has entered: so the kubelet never starts with half of it,
// and what was cut off is done again.
func (e *Engine) change() error {
	if e.host == nil {
		return nil
	}
	errs := []error{e.settings()}
	if e.exists(kubeletConfig) {
		kubelet, err := e.Config.kubelet(e.present().authority)
		errs = append(errs, err)
		text, err := documents(kubelet)
		errs = append(errs, err, e.write(kubeletConfig, text))
	}
	return errors.Join(errs...)
}

// isForeign reports whether a node is of another blueprint.
func (e *Engine) isForeign(node string) bool {
	return slices.ContainsFunc(e.foreign, func(c introduction.Cube) bool {
		return slices.ContainsFunc(slices.Concat(c.ControlPlane, c.Workers), func(m introduction.Member) bool { return m.Name == node })
	})
}

// identityFor is the identity in which this node speaks with another one.
func (e *Engine) identityFor(node string) identity {
	if e.host != nil && e.isForeign(node) {
		return hostIdentity()
	}
	return ownIdentity()
}

// present is the identity of the cluster that the node works for.
func (e *Engine) present() identity { return e.identityFor(e.Config.ControlPlane[0].Name) }

// Hosts are the cubes whose identity stays where there are several.
func (e *Engine) Hosts() []string {
	var own, foreign []string
	for _, c := range e.Config.Cubes {
		if slices.ContainsFunc(e.foreign, func(f introduction.Cube) bool { return f.Name == c.Name }) {
			foreign = append(foreign, c.Name)
		} else {
			own = append(own, c.Name)
		}
	}
	switch {
	case foreign == nil:
		return nil
	case e.host != nil:
		return foreign
	}
	return own
}

// isOf reports whether a certificate may say of somebody that he is a node of a
// blueprint: the guest's authority has no say over the host's nodes.
func (e *Engine) isOf(leaf *x509.Certificate, node string) bool {
	if leaf.Subject.CommonName != nodeUser(node) {
		return false
	}
	return e.host == nil || !e.isForeign(node) || leaf.CheckSignatureFrom(e.host) == nil
}

// Authority is whom the node trusts: its own authority, and that of its host.
func (e *Engine) Authority() (*x509.CertPool, error) {
	pool, err := e.authority(AuthorityCertificate)
	if err == nil && e.host != nil {
		pool.AddCert(e.host)
	}
	return pool, err
}

// Certificate is what the node is known by to all clusters that it may meet.
func (e *Engine) Certificate() (tls.Certificate, error) {
	id := ownIdentity()
	if e.host != nil {
		id = hostIdentity()
	}
	return e.pair(id.node, NodeKey)
}

func (e *Engine) pair(certificate, key string) (tls.Certificate, error) {
	return tls.LoadX509KeyPair(filepath.Join(e.Root, certificate), filepath.Join(e.Root, key))
}

func (e *Engine) certificate(name string) (*x509.Certificate, error) {
	text, err := os.ReadFile(filepath.Join(e.Root, name))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: cannot find a certificate in it", name)
	}
	return x509.ParseCertificate(block.Bytes)
}

// serverConfig is for those who call the node: others of its blueprint, who may
// not have been introduced yet, and by another name those who have.
func (e *Engine) serverConfig() (*tls.Config, error) {
	conf, err := e.tlsConfig(ownIdentity())
	if err != nil {
		return nil, err
	}
	if conf.ClientCAs, err = e.Authority(); err != nil {
		return nil, err
	}
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	if e.host == nil {
		return conf, nil
	}
	common, err := e.Certificate()
	if err != nil {
		return nil, err
	}
	conf.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == inCommon {
			return &common, nil
		}
		return nil, nil // its own
	}
	return conf, nil
}

// told stands for the introductions that a node keeps: others compare it.
func (e *Engine) told() string {
	if len(e.kept) == 0 {
		return ""
	}
	sum := sha256.Sum256(bytes.Join(e.kept, nil))
	return hex.EncodeToString(sum[:8])
}

// takeOver takes an introduction that another node brings. Who that is matters
// as little as who carries a card.
func (e *Engine) takeOver(w http.ResponseWriter, r *http.Request) {
	tell := e.news.Load()
	if tell == nil {
		http.Error(w, "it is just starting", http.StatusServiceUnavailable)
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, introduction.MaxSize))
	if err != nil {
		http.Error(w, "cannot read it", http.StatusBadRequest)
		return
	}
	said, err := e.TakeIntroduction(data)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if said != "" {
		(*tell)(said)
	}
	w.WriteHeader(http.StatusNoContent)
}

// PassOn brings the node's introductions to those of its blueprint that do not
// have them: it is enough to write one card of each, and one that was flashed
// anew learns of them, too.
func (e *Engine) PassOn(ctx context.Context, peers []nodeconf.Peer) error {
	told := e.told()
	if told == "" {
		return nil
	}
	var errs []error
	for _, p := range peers {
		if p.Name == e.Node.Hostname || e.isForeign(p.Name) {
			continue
		}
		theirs, err := e.ask(ctx, member(p))
		if err != nil || theirs.Told == told {
			continue // who is off is told another time
		}
		for _, data := range e.kept {
			if err := e.bring(ctx, member(p), data); err != nil {
				errs = append(errs, fmt.Errorf("%s: introduction: %w", p.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) bring(ctx context.Context, m Member, data []byte) error {
	client, err := e.client(m)
	if err != nil {
		return err
	}
	client.Timeout = lookTimeout
	return put(ctx, client, peerURL(m, introductionPath), bytes.NewReader(data))
}
