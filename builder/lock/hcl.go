package lock

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/gocty"
)

// Bytes returns the text of a lock file, sorted, so that the differences of
// two versions read well.
func (l *Lock) Bytes() []byte {
	f := hclwrite.NewEmptyFile()
	root := f.Body()
	root.AppendUnstructuredTokens(hclwrite.Tokens{{Type: hclsyntax.TokenComment, Bytes: []byte(
		"# Written by picube-build. Keep it with the blueprint; \"picube-build update\" renews it.\n\n")}})
	root.SetAttributeValue("format", cty.NumberIntVal(Format))
	root.SetAttributeValue("created", timeValue(l.Created))
	block := func(b *hclwrite.Body, kind string, labels ...string) *hclwrite.Body {
		b.AppendNewline()
		return b.AppendNewBlock(kind, labels).Body()
	}
	optional := func(b *hclwrite.Body, name, value string) {
		if value != "" {
			b.SetAttributeValue(name, cty.StringVal(value))
		}
	}
	for _, s := range sorted(l.Suites, Suite.key) {
		b := block(root, "suite", s.Archive, s.Name)
		optional(b, "version", s.Version)
		b.SetAttributeValue("date", timeValue(s.Date))
		b.SetAttributeValue("sha256", cty.StringVal(s.SHA256))
	}
	for _, i := range sorted(l.Inputs, Input.key) {
		b := block(root, "input", i.Name)
		b.SetAttributeValue("version", cty.StringVal(i.Version))
		optional(b, "source", i.Source)
		optional(b, "path", i.Path)
		b.SetAttributeValue("size", cty.NumberIntVal(i.Size))
		b.SetAttributeValue("sha256", cty.StringVal(i.SHA256))
	}
	for _, s := range sorted(l.Sets, Set.key) {
		set := block(root, "packages", s.Name, s.Arch)
		set.SetAttributeRaw("requests", stringList(s.Requests))
		for _, p := range sorted(s.Packages, func(p Package) string { return p.Name }) {
			b := block(set, "package", p.Name)
			b.SetAttributeValue("version", cty.StringVal(p.Version))
			b.SetAttributeValue("arch", cty.StringVal(p.Arch))
			b.SetAttributeValue("archive", cty.StringVal(p.Archive))
			b.SetAttributeValue("path", cty.StringVal(p.Path))
			b.SetAttributeValue("size", cty.NumberIntVal(p.Size))
			b.SetAttributeValue("sha256", cty.StringVal(p.SHA256))
			optional(b, "by", p.By)
		}
	}
	return hclwrite.Format(f.Bytes())
}

func sorted[T any](list []T, key func(T) string) []T {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
	return list
}

// stringList writes one string per line: one more is one line more.
func stringList(list []string) hclwrite.Tokens {
	list = slices.Clone(list)
	slices.Sort(list)
	tokens := hclwrite.Tokens{{Type: hclsyntax.TokenOBrack, Bytes: []byte("[\n")}}
	for _, s := range slices.Compact(list) {
		tokens = append(tokens, hclwrite.TokensForValue(cty.StringVal(s))...)
		tokens = append(tokens, &hclwrite.Token{Type: hclsyntax.TokenComma, Bytes: []byte(",\n")})
	}
	return append(tokens, &hclwrite.Token{Type: hclsyntax.TokenCBrack, Bytes: []byte("]")})
}

func timeValue(t time.Time) cty.Value { return cty.StringVal(t.UTC().Format(time.RFC3339)) }

// Parse reads the text of a lock file and reports all its faults at once.
func Parse(filename string, text []byte) (*Lock, hcl.Diagnostics) {
	p := &parser{}
	f, diags := hclsyntax.ParseConfig(text, filename, hcl.InitialPos)
	if p.diags = diags; diags.HasErrors() {
		return nil, diags
	}
	l := &Lock{}
	root := p.read(f.Body, []string{"format", "created"}, nil,
		hcl.BlockHeaderSchema{Type: "suite", LabelNames: []string{"archive", "name"}},
		hcl.BlockHeaderSchema{Type: "input", LabelNames: []string{"name"}},
		hcl.BlockHeaderSchema{Type: "packages", LabelNames: []string{"set", "arch"}})
	if format := root.number("format"); format != Format && !p.diags.HasErrors() {
		p.fail(root.attributes["format"].Range, "Unknown format", fmt.Sprintf("This lock has format %d; this picube-build knows format %d.", format, Format))
	}
	l.Created = root.time("created")
	seen := map[string]bool{}
	for _, b := range root.blocks {
		p.once(seen, b)
		switch b.Type {
		case "suite":
			x := p.read(b.Body, []string{"date", "sha256"}, []string{"version"})
			l.Suites = append(l.Suites, Suite{b.Labels[0], b.Labels[1], x.text("version", nil), x.time("date"), x.text("sha256", checkDigest)})
		case "input":
			x := p.read(b.Body, []string{"version", "size", "sha256"}, []string{"source", "path"})
			l.Inputs = append(l.Inputs, Input{b.Labels[0], x.text("version", nil), x.text("source", nil), x.text("path", checkPath), x.number("size"), x.text("sha256", checkDigest)})
		case "packages":
			x := p.read(b.Body, []string{"requests"}, nil, hcl.BlockHeaderSchema{Type: "package", LabelNames: []string{"name"}})
			set := Set{Name: b.Labels[0], Arch: b.Labels[1], Requests: x.texts("requests")}
			inSet := map[string]bool{}
			for _, b := range x.blocks {
				p.once(inSet, b)
				x := p.read(b.Body, []string{"version", "arch", "archive", "path", "size", "sha256"}, []string{"by"})
				set.Packages = append(set.Packages, Package{b.Labels[0], x.text("version", nil), x.text("arch", nil), x.text("archive", nil),
					x.text("path", checkPath), x.number("size"), x.text("sha256", checkDigest), x.text("by", nil)})
			}
			l.Sets = append(l.Sets, set)
		}
	}
	if p.diags.HasErrors() {
		return nil, p.diags
	}
	return l, p.diags
}

type parser struct{ diags hcl.Diagnostics }

func (p *parser) fail(at hcl.Range, summary, detail string) {
	p.diags = append(p.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Subject: &at,
		Detail: detail + " If this lock was not edited on purpose, remove it or run \"picube-build update\"."})
}

func (p *parser) once(seen map[string]bool, b *hcl.Block) {
	key := fmt.Sprintf("%s %q", b.Type, b.Labels)
	if seen[key] {
		p.fail(b.DefRange, "Duplicate block", fmt.Sprintf("There is more than one block %s with these labels.", b.Type))
	}
	seen[key] = true
}

// content is a body's attributes and blocks; attributes that are missing or
// of the wrong type have been reported and read as zero.
type content struct {
	parser     *parser
	attributes hcl.Attributes
	blocks     hcl.Blocks
}

func (p *parser) read(body hcl.Body, required, optional []string, blocks ...hcl.BlockHeaderSchema) content {
	schema := &hcl.BodySchema{Blocks: blocks}
	for _, name := range required {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: name, Required: true})
	}
	for _, name := range optional {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: name})
	}
	c, diags := body.Content(schema)
	p.diags = append(p.diags, diags...)
	return content{p, c.Attributes, c.Blocks}
}

// value decodes an attribute into to, and reports whether that went well.
func (c content) value(name string, kind cty.Type, what string, to any) bool {
	a := c.attributes[name]
	if a == nil {
		return false
	}
	v, diags := a.Expr.Value(nil)
	if diags.HasErrors() {
		c.parser.diags = append(c.parser.diags, diags...)
		return false
	}
	good := v.IsWhollyKnown() && !v.IsNull()
	if good && kind == cty.List(cty.String) {
		var list []string
		if good = v.CanIterateElements(); good {
			for _, e := range v.Elements() {
				if !e.Type().Equals(cty.String) || e.IsNull() {
					good = false
					break
				}
				list = append(list, e.AsString())
			}
		}
		*to.(*[]string) = list
	} else if good {
		good = v.Type().Equals(kind) && gocty.FromCtyValue(v, to) == nil
	}
	if !good {
		c.parser.fail(a.Expr.Range(), "Wrong value", fmt.Sprintf("The value of %s must be %s.", name, what))
	}
	return good
}

func (c content) text(name string, check func(string) error) string {
	var s string
	if c.value(name, cty.String, "a string", &s) && check != nil {
		if err := check(s); err != nil {
			c.parser.fail(c.attributes[name].Expr.Range(), "Wrong value", fmt.Sprintf("The value of %s cannot be used: %v.", name, err))
		}
	}
	return s
}

func (c content) texts(name string) []string {
	var list []string
	c.value(name, cty.List(cty.String), "a list of strings", &list)
	return list
}

func (c content) number(name string) int64 {
	n := new(big.Float)
	if !c.value(name, cty.Number, "a number", n) {
		return 0
	}
	i, accuracy := n.Int64()
	if accuracy != big.Exact || i < 0 {
		c.parser.fail(c.attributes[name].Expr.Range(), "Wrong value", fmt.Sprintf("The value of %s must be a whole number, and not negative.", name))
	}
	return i
}

func (c content) time(name string) time.Time {
	var s string
	if !c.value(name, cty.String, "a string", &s) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		c.parser.fail(c.attributes[name].Expr.Range(), "Wrong value", fmt.Sprintf("The value of %s must be a time such as 2026-11-22T12:00:00Z.", name))
	}
	return t.UTC()
}
