package blueprint

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// section reads the attributes of one block and gathers their mistakes. Its
// getters return false when an attribute is missing or wrong, and have said so.
type section struct {
	*parser
	ctx    *hcl.EvalContext
	attrs  hcl.Attributes
	blocks hcl.Blocks
	header hcl.Range
}

// section checks which attributes and blocks stand in a block. A name that
// ends in "!" is required.
func (p *parser) section(b *hcl.Block, ctx *hcl.EvalContext, attrs []string, blocks ...hcl.BlockHeaderSchema) *section {
	schema := &hcl.BodySchema{Blocks: blocks}
	for _, name := range attrs {
		name, required := strings.CutSuffix(name, "!")
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: name, Required: required})
	}
	content, diags := b.Body.Content(schema)
	for _, d := range diags {
		if d.Subject != nil && d.Summary == "Missing required argument" {
			d.Subject = &b.DefRange
		}
	}
	p.add(diags...)
	return &section{parser: p, ctx: ctx, attrs: content.Attributes, blocks: content.Blocks, header: b.DefRange}
}

// at is where to point for an attribute: its value, or the block's header.
func (s *section) at(name string) hcl.Range {
	if a, ok := s.attrs[name]; ok {
		return a.Expr.Range()
	}
	return s.header
}

func (s *section) has(name string) bool { _, ok := s.attrs[name]; return ok }

// value evaluates an attribute and converts it. Values that may not be shown
// are refused: nearly everything ends up in names, plans and public files.
func (s *section) value(name string, want cty.Type) (cty.Value, bool) {
	v, sensitive, ok := s.secretValue(name, want)
	if ok && sensitive {
		s.errorf(s.at(name), "Sensitive value not allowed",
			"%q is shown in plans and stands in files that anyone may read, so it can't be made from a sensitive value.", name)
		return cty.NilVal, false
	}
	return v, ok
}

// secretValue is value for the attributes that may be sensitive.
func (s *section) secretValue(name string, want cty.Type) (v cty.Value, sensitive, ok bool) {
	a, has := s.attrs[name]
	if !has {
		return cty.NilVal, false, false
	}
	v, ok = s.evaluate(a.Expr, s.ctx)
	if !ok {
		return cty.NilVal, false, false
	}
	v, marks := v.UnmarkDeep()
	if !v.IsWhollyKnown() {
		return cty.NilVal, false, false // the variable without a value was reported
	}
	if v.IsNull() {
		return cty.NilVal, false, false // as if it weren't there
	}
	v, err := convert.Convert(v, want)
	if err != nil {
		s.errorf(a.Expr.Range(), "Wrong type of value", "%q must be %s: %s.", name, friendly(want), err)
		return cty.NilVal, false, false
	}
	if hasNull(v) {
		s.errorf(a.Expr.Range(), "Wrong type of value", "%q can't hold null.", name)
		return cty.NilVal, false, false
	}
	return v, len(marks) > 0, true
}

func hasNull(v cty.Value) bool {
	null := false
	_ = cty.Walk(v, func(_ cty.Path, v cty.Value) (bool, error) {
		null = null || v.IsNull()
		return true, nil
	})
	return null
}

func friendly(t cty.Type) string {
	switch {
	case t.IsListType():
		return "a list of " + t.ElementType().FriendlyName() + "s"
	case t.IsMapType():
		return "a map of " + t.ElementType().FriendlyName() + "s"
	}
	return "a " + t.FriendlyName()
}

// evaluate is expr.Value, with a better message for a variable or local value
// that nobody declared.
func (p *parser) evaluate(expr hcl.Expression, ctx *hcl.EvalContext) (cty.Value, bool) {
	ok := true
	for _, t := range expr.Variables() {
		ok = p.checkReference(t, ctx) && ok
	}
	if !ok {
		return cty.NilVal, false
	}
	v, diags := expr.Value(ctx)
	p.add(diags...)
	return v, !diags.HasErrors()
}

func (p *parser) checkReference(t hcl.Traversal, ctx *hcl.EvalContext) bool {
	if len(t) < 2 {
		return true
	}
	attr, ok := t[1].(hcl.TraverseAttr)
	if !ok {
		return true
	}
	switch t.RootName() {
	case "var":
		if _, ok := p.vars[attr.Name]; !ok {
			p.errorf(t.SourceRange(), "Unknown variable", "There is no variable %q.%s Declare it with: variable %q {}.",
				attr.Name, didYouMean(attr.Name, keys(p.vars)), attr.Name)
			return false
		}
	case "local":
		if _, ok := p.locals[attr.Name]; !ok {
			p.errorf(t.SourceRange(), "Unknown local value", "There is no local value %q.%s",
				attr.Name, didYouMean(attr.Name, keys(p.locals)))
			return false
		}
	default:
		for ; ctx != nil; ctx = ctx.Parent() {
			object, ok := ctx.Variables[t.RootName()]
			if ok && object.Type().IsObjectType() && !object.Type().HasAttribute(attr.Name) {
				known := keys(object.Type().AttributeTypes())
				p.errorf(t.SourceRange(), "Unknown attribute", "%q has no %q.%s It has: %s.",
					t.RootName(), attr.Name, didYouMean(attr.Name, known), strings.Join(known, ", "))
				return false
			}
		}
	}
	return true
}

func (s *section) text(name string, dst *string) bool {
	v, ok := s.value(name, cty.String)
	if ok {
		*dst = v.AsString()
	}
	return ok
}

func (s *section) secret(name string, dst *Secret) bool {
	v, _, ok := s.secretValue(name, cty.String)
	if ok {
		*dst = Secret(v.AsString())
	}
	return ok
}

func (s *section) boolean(name string, dst *bool) bool {
	v, ok := s.value(name, cty.Bool)
	if ok {
		*dst = v.True()
	}
	return ok
}

// integer reads a whole number between two limits.
func (s *section) integer(name string, dst *int, low, high int) bool {
	v, ok := s.value(name, cty.Number)
	if !ok {
		return false
	}
	n, accuracy := v.AsBigFloat().Int64()
	if accuracy != big.Exact || n < int64(low) || n > int64(high) {
		s.errorf(s.at(name), "Number out of range", "%q must be a whole number from %d to %d.", name, low, high)
		return false
	}
	*dst = int(n)
	return true
}

// number reads a number between two limits.
func (s *section) number(name string, dst *float64, low, high float64) bool {
	v, ok := s.value(name, cty.Number)
	if !ok {
		return false
	}
	n, _ := v.AsBigFloat().Float64()
	if n < low || n > high {
		s.errorf(s.at(name), "Number out of range", "%q must be a number from %g to %g.", name, low, high)
		return false
	}
	*dst = n
	return true
}

func (s *section) list(name string, dst *[]string) bool {
	v, ok := s.value(name, cty.List(cty.String))
	if ok {
		*dst = (*dst)[:0:0]
		for _, e := range v.AsValueSlice() {
			*dst = append(*dst, e.AsString())
		}
	}
	return ok
}

func (s *section) table(name string, dst *map[string]string) bool {
	v, ok := s.value(name, cty.Map(cty.String))
	if ok {
		*dst = map[string]string{}
		for k, e := range v.AsValueMap() {
			(*dst)[k] = e.AsString()
		}
	}
	return ok
}

// choice reads a text that must be one of a few.
func (s *section) choice(name string, dst *string, choices ...string) {
	var given string
	if !s.text(name, &given) {
		return
	}
	if !slices.Contains(choices, given) {
		s.errorf(s.at(name), "Unknown "+strings.ReplaceAll(name, "_", " "), "%q can't be %q.%s Choose from: %s.",
			name, given, didYouMean(given, choices), strings.Join(choices, ", "))
		return
	}
	*dst = given
}

func (s *section) prefix(name string, dst *netip.Prefix) bool {
	var given string
	if !s.text(name, &given) {
		return false
	}
	prefix, err := netip.ParsePrefix(given)
	if err != nil || !prefix.Addr().Is4() {
		s.errorf(s.at(name), "Invalid network", `%q must be an IPv4 network such as "10.42.0.0/16", not %q.`, name, given)
		return false
	}
	if prefix != prefix.Masked() {
		s.errorf(s.at(name), "Invalid network", "%q is an address inside a network, the network itself is %q.", given, prefix.Masked())
		return false
	}
	*dst = prefix
	return true
}

// each reports every element of a list that check objects to. check returns
// what is wrong with it, or "".
func (s *section) each(name, summary string, list []string, check func(string) string) {
	for i, e := range list {
		if why := check(e); why != "" {
			s.errorf(s.element(name, i), summary, "%s", why)
		}
	}
}

// element is where the i-th element of a list stands, if it was written out.
func (s *section) element(name string, i int) hcl.Range {
	a, ok := s.attrs[name]
	if !ok {
		return s.header
	}
	if tuple, ok := a.Expr.(*hclsyntax.TupleConsExpr); ok && i < len(tuple.Exprs) {
		return tuple.Exprs[i].Range()
	}
	return a.Expr.Range()
}

// one returns the only block of a type, or nil, and refuses more.
func (s *section) one(kind string) *hcl.Block {
	blocks := s.blocks.OfType(kind)
	if len(blocks) == 0 {
		return nil
	}
	for _, b := range blocks[1:] {
		s.errorf(b.DefRange, "Duplicate "+kind+" block", "There can be only one %q block here; the first one is at %s.", kind, blocks[0].DefRange)
	}
	return blocks[0]
}

// didYouMean is a sentence with the nearest of the known names, or "".
func didYouMean(given string, known []string) string {
	best, distance := "", 3 // further away it's another word
	for _, k := range known {
		if d := levenshtein.Distance(given, k, nil); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %q?", best)
}

// keys returns a map's keys, sorted.
func keys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
