package unit

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/tree"
)

func TestEnable(t *testing.T) {
	tr := tree.New(0)
	if err := tr.MkdirAll(vendorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	units := map[string]string{
		"net.service": "[Unit]\nWantedBy=nobody.target\n[Install]\nWantedBy=multi-user.target a.target\nAlias=dbus-net.service\nAlso=net.socket\n",
		"net.socket":  "[Install]\nRequiredBy=sockets.target\nAlso=net.service\n",
	}
	for name, text := range units {
		if err := tr.WriteFile(vendorDir+"/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := Enable(tr, "net.service"); err != nil {
			t.Fatal(err)
		}
	}
	if err := Mask(tr, "slow.service"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for p, n := range tr.Below(adminDir) {
		if n.IsSymlink() {
			got = append(got, fmt.Sprint(strings.TrimPrefix(p, adminDir+"/"), " -> ", n.Target))
		}
	}
	want := []string{
		"a.target.wants/net.service -> " + vendorDir + "/net.service",
		"dbus-net.service -> " + vendorDir + "/net.service",
		"multi-user.target.wants/net.service -> " + vendorDir + "/net.service",
		"slow.service -> /dev/null",
		"sockets.target.requires/net.socket -> " + vendorDir + "/net.socket",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := Enable(tr, "missing.service"); err == nil || !strings.HasPrefix(err.Error(), "unit missing.service") {
		t.Errorf("error %v, want one that names the unit", err)
	}
}
