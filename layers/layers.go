// Package layers lists what picube-build can put on a card besides the
// distribution: one folder per feature, what lies on the card beside what
// runs on the node.
package layers

import (
	"github.com/picube/picube-build/builder"
	"github.com/picube/picube-build/layers/apt"
	"github.com/picube/picube-build/layers/boot"
	"github.com/picube/picube-build/layers/clock"
	"github.com/picube/picube-build/layers/cluster"
	"github.com/picube/picube-build/layers/configure"
	"github.com/picube/picube-build/layers/display"
	"github.com/picube/picube-build/layers/fan"
	"github.com/picube/picube-build/layers/grow"
	"github.com/picube/picube-build/layers/identity"
	"github.com/picube/picube-build/layers/kubernetes"
	"github.com/picube/picube-build/layers/mdns"
	"github.com/picube/picube-build/layers/network"
	"github.com/picube/picube-build/layers/ssh"
	"github.com/picube/picube-build/layers/status"
	"github.com/picube/picube-build/layers/users"
	"github.com/picube/picube-build/layers/wifi"
)

// Options are what layers need of the host.
type Options struct {
	Kubernetes *kubernetes.Layer
}

// Blocks are the blueprint's blocks that have a layer.
func Blocks() []string { return []string{"kubernetes", "display", "fan", "time", "wifi", "status"} }

// All returns the layers in the order in which they are applied.
func All(o Options) []builder.Layer {
	return []builder.Layer{
		boot.Layer{},
		identity.Layer{},
		grow.Layer{},
		configure.Layer{},
		network.Layer{},
		wifi.Layer{},
		mdns.Layer{},
		clock.Layer{},
		users.Layer{},
		ssh.Layer{},
		apt.Layer{},
		status.Layer{},
		display.Layer{},
		fan.Layer{},
		o.Kubernetes,
		cluster.Layer{},
	}
}
