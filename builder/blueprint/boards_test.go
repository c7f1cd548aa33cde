package blueprint

import (
	"fmt"
	"strings"
	"testing"
)

func TestBoardsThatCannot(t *testing.T) {
	o := testOptions()
	o.Boards = append(o.Boards, Board{Name: "rpi2", Arch: "armhf"}, Board{Name: "new", Arch: "arm64", NotOnDebian: "It is too new."})
	const image = "base \"image\" {\nsource = \"x.img.xz\"\nsha256 = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n}\n"
	for _, tt := range []struct{ cube, want string }{
		{`board = "rpi2"`, ""},
		{"board = \"rpi2\"\nkubernetes {}", `The node "rpi1" is a rpi2, whose 32-bit system can't run etcd.`},
		{"board = \"rpi2\"\nkubernetes {}\nnode \"rpi1\" { board = \"rpi4\" }", ""},
		{`board = "new"`, `The node "rpi1" is a new: It is too new.`},
		{"board = \"new\"\n" + image, ""},
	} {
		_, diags := Parse("x.hcl", fmt.Appendf(nil, "cube \"a\" {\nnodes = 3\n%s\n}\n", tt.cube), o)
		if tt.want == "" && diags.HasErrors() || tt.want != "" && (len(diags) != 1 || !strings.HasPrefix(diags[0].Detail, tt.want)) {
			t.Errorf("%s: got %v", tt.cube, diags)
		}
	}
}
