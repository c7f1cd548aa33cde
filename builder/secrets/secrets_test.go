package secrets

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestClusterIsStable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "picube.secrets")
	first, err := Open(dir, rand.Reader).Cluster("picube")
	if err != nil {
		t.Fatal(err)
	}
	second, err := Open(dir, rand.Reader).Cluster("picube")
	if err != nil {
		t.Fatal(err)
	}
	if first.MachineID("rpi1") != second.MachineID("rpi1") {
		t.Error("the same cluster gave two machine ids")
	}
	if first.MachineID("rpi1") == first.MachineID("rpi2") {
		t.Error("two nodes share a machine id")
	}
	if !first.ECDSA("ca").Equal(second.ECDSA("ca")) || first.ECDSA("ca").Equal(first.ECDSA("etcd")) {
		t.Error("keys must differ by purpose and only by purpose")
	}
	for name, want := range map[string]os.FileMode{"": 0o700 | os.ModeDir, "picube.seed": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%q: mode %v, want %v", name, info.Mode(), want)
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("temporary files left: %v", entries)
	}
}

func TestIntroductions(t *testing.T) {
	f := Open(filepath.Join(t.TempDir(), "home.secrets"), rand.Reader)
	if all, err := f.Introductions("home"); all != nil || err != nil {
		t.Errorf("none: %v, %v", all, err)
	}
	for _, data := range []string{"first", "second"} {
		if err := errors.Join(f.KeepIntroduction("home", "friend", []byte(data)), f.KeepIntroduction("other", "x", nil)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := f.Introductions("home")
	if err != nil || len(all) != 1 || string(all["friend"]) != "second" {
		t.Errorf("%q, %v", all, err)
	}
}

func TestDamagedSeed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "picube.seed"), []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, rand.Reader).Cluster("picube")
	if err == nil || !strings.Contains(err.Error(), `cluster "picube"`) {
		t.Errorf("error %v, want one that names the cluster", err)
	}
}

func TestSSHKeys(t *testing.T) {
	c, err := Open(t.TempDir(), bytes.NewReader(make([]byte, 32))).Cluster("picube")
	if err != nil {
		t.Fatal(err)
	}
	key := c.Ed25519("host", "rpi1")
	signer, err := ssh.ParsePrivateKey(SSHPrivateKey(key, "rpi1"))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	if got+" rpi1" != SSHPublicKey(key, "rpi1") {
		t.Errorf("the private key's public half is %q, want %q", got, SSHPublicKey(key, "rpi1"))
	}
}
