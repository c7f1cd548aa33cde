package firmware

import (
	"encoding/binary"
	"slices"
)

// PWMOverlay returns a device tree overlay that gives a line of the header to
// the PWM controller, for config.txt's dtoverlay=. Debian ships none, and its
// kernel loads none at run time. Nodes are found through the __symbols__ of
// the kernel's own trees.
//
// The format is the flattened devicetree of the Devicetree Specification v0.4,
// chapter 5; what makes it an overlay is the kernel's
// Documentation/devicetree/dynamic-resolution-notes.rst.
func PWMOverlay(p PWM) []byte {
	const unresolved = 0xffffffff // a phandle that __fixups__ says more of
	var t flatTree
	t.begin("")
	t.text("compatible", "brcm,bcm2835")
	t.begin("fragment@0")
	t.cell("target", unresolved)
	t.begin("__overlay__")
	t.text("pinctrl-names", "default")
	t.cell("pinctrl-0", unresolved)
	t.text("status", "okay")
	t.end()
	t.end()
	t.begin("__fixups__")
	t.text(PWMController, "/fragment@0:target:0")
	t.text(p.Pins, "/fragment@0/__overlay__:pinctrl-0:0")
	t.end()
	t.end()
	return t.bytes()
}

// flatTree is a devicetree blob in the making.
type flatTree struct {
	structure, strings []byte
	names              []string
	offsets            []uint32
}

// Tokens of the structure block.
const (
	fdtBegin = 1
	fdtEnd   = 2
	fdtProp  = 3
	fdtStop  = 9
)

func (t *flatTree) word(v uint32) { t.structure = binary.BigEndian.AppendUint32(t.structure, v) }

func (t *flatTree) padded(data []byte) {
	t.structure = append(t.structure, data...)
	for len(t.structure)%4 != 0 {
		t.structure = append(t.structure, 0)
	}
}

func (t *flatTree) begin(name string) {
	t.word(fdtBegin)
	t.padded(append([]byte(name), 0))
}

func (t *flatTree) end() { t.word(fdtEnd) }

func (t *flatTree) property(name string, value []byte) {
	i := slices.Index(t.names, name)
	if i < 0 {
		i = len(t.names)
		t.names = append(t.names, name)
		t.offsets = append(t.offsets, uint32(len(t.strings)))
		t.strings = append(append(t.strings, name...), 0)
	}
	t.word(fdtProp)
	t.word(uint32(len(value)))
	t.word(t.offsets[i])
	t.padded(value)
}

func (t *flatTree) text(name, value string) { t.property(name, append([]byte(value), 0)) }

func (t *flatTree) cell(name string, v uint32) {
	t.property(name, binary.BigEndian.AppendUint32(nil, v))
}

func (t *flatTree) bytes() []byte {
	t.word(fdtStop)
	const header, reservations = 40, 16 // an empty list of reserved memory
	structure := uint32(header + reservations)
	names := structure + uint32(len(t.structure))
	var out []byte
	for _, v := range []uint32{
		0xd00dfeed, names + uint32(len(t.strings)), structure, names, header,
		17, 16, 0, uint32(len(t.strings)), uint32(len(t.structure)), // version, compatible with
	} {
		out = binary.BigEndian.AppendUint32(out, v)
	}
	return slices.Concat(out, make([]byte, reservations), t.structure, t.strings)
}
