package blueprint

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// maxSource bounds a blueprint and a variable file, in bytes.
const maxSource = 1 << 20

// Options is what a blueprint is read with.
type Options struct {
	Boards   []Board           // known boards; the first one is the default
	Layers   []string          // layers that exist: "wifi", "kubernetes", "display", "fan", "time", "status"
	Vars     map[string]string // -var name=value
	VarFiles []VarFile         // -var-file, later ones win
	Env      map[string]string // the environment: PICUBE_VAR_* and env()

	// SSHKeys returns the user's public keys, one authorized_keys line each,
	// for ssh_keys(). Nil: there are none.
	SSHKeys func() ([]string, error)
	// Open opens a file for file() by a path of the host. Nil: os.Open.
	Open func(path string) (fs.File, error)
	// CheckLine looks for mistakes in a line of a display's page that may use
	// these glyphs: what is wrong, "" for nothing, and at which byte. Nil: any
	// line will do.
	CheckLine func(line string, glyphs []string) (offset int, why string)
}

// VarFile is a file of `name = value` lines.
type VarFile struct {
	Path string
	Src  []byte
}

// Blocks that need a layer, by the layer's name.
var layerBlocks = []string{"wifi", "kubernetes", "display", "fan", "time", "status"}

// Parse reads a blueprint and reports all mistakes at once. The Blueprint is
// nil if one of the diagnostics is an error.
func Parse(path string, src []byte, o Options) (*Blueprint, hcl.Diagnostics) {
	if o.Open == nil {
		o.Open = func(path string) (fs.File, error) { return os.Open(path) }
	}
	p := &parser{path: path, Options: o}
	bp := p.parse(src)
	for _, d := range p.diags {
		// hcl's own printer shows the values in the context of an expression
		// and can't handle sensitive ones.
		d.EvalContext, d.Expression = nil, nil
		d.Summary, d.Detail = p.scrub(d.Summary), p.scrub(d.Detail)
	}
	sortDiagnostics(p.diags)
	if p.diags.HasErrors() {
		return nil, p.diags
	}
	return bp, p.diags
}

type parser struct {
	Options
	path    string
	diags   hcl.Diagnostics
	funcs   map[string]function.Function
	globals map[string]cty.Value // var, local
	vars    map[string]*variable
	locals  map[string]*hcl.Attribute
	secrets []string // texts of sensitive values
}

var rootSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "variable", LabelNames: []string{"name"}},
	{Type: "locals"},
	{Type: "cube", LabelNames: []string{"name"}},
}}

func (p *parser) parse(src []byte) *Blueprint {
	f := p.parseFile(p.path, src)
	if f == nil {
		return nil
	}
	content, diags := f.Body.Content(rootSchema)
	p.add(diags...)
	p.funcs = p.functions()
	p.globals = map[string]cty.Value{}
	p.readVariables(content.Blocks.OfType("variable"))
	p.readLocals(content.Blocks.OfType("locals"))

	bp := &Blueprint{Path: p.path}
	blocks := content.Blocks.OfType("cube")
	if len(blocks) == 0 && !p.diags.HasErrors() {
		p.errorf(f.Body.MissingItemRange(), "No cube",
			`A blueprint describes at least one cube. The smallest is: cube "picube" { nodes = 5 }.`)
	}
	for i, b := range blocks {
		bp.Cubes = append(bp.Cubes, p.readCube(b, i))
	}
	p.checkCubes(bp.Cubes)
	return bp
}

// parseFile returns nil for a file that isn't HCL: what follows from half a
// file would only hide the mistake.
func (p *parser) parseFile(path string, src []byte) *hcl.File {
	start := hcl.Range{Filename: path, Start: hcl.InitialPos, End: hcl.InitialPos}
	if len(src) > maxSource {
		p.errorf(start, "File too large", "%s has %d bytes, the limit is %d.", path, len(src), maxSource)
		return nil
	}
	plain, hexDiags := decimal(path, src)
	f, diags := hclsyntax.ParseConfig(plain, path, hcl.InitialPos)
	diags = append(diags, hexDiags...)
	p.add(diags...)
	if diags.HasErrors() {
		return nil
	}
	return f
}

func (p *parser) add(diags ...*hcl.Diagnostic) { p.diags = append(p.diags, diags...) }

func (p *parser) errorf(r hcl.Range, summary, format string, args ...any) {
	p.add(&hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &r})
}

// context is what expressions see, with extra names beside var and local.
func (p *parser) context(extra map[string]cty.Value) *hcl.EvalContext {
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{}, Functions: p.funcs}
	for name, v := range p.globals {
		ctx.Variables[name] = v
	}
	for name, v := range extra {
		ctx.Variables[name] = v
	}
	return ctx
}

// scrub takes the texts of sensitive values out of a message: some of hcl's
// and cty's errors quote what they were given.
func (p *parser) scrub(s string) string {
	for _, secret := range p.secrets {
		s = strings.ReplaceAll(s, secret, Redacted)
	}
	return s
}

// sortDiagnostics puts them in the file's order.
func sortDiagnostics(diags hcl.Diagnostics) {
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		if a.Subject == nil || b.Subject == nil {
			return 0
		}
		if c := strings.Compare(a.Subject.Filename, b.Subject.Filename); c != 0 {
			return c
		}
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
}
