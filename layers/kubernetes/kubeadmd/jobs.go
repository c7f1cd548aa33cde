package kubeadmd

import (
	"context"
	"slices"
)

// A Job must not run in two clusters at once. So the leader gets those that are
// not done as suspended ones (spec.suspend of batch/v1), and their own cluster
// suspends them when it takes no more writes; only then they are handed over to
// run, from their beginning, and those that were done meanwhile are not. Where the
// cluster takes writes again, they go on at home.
//
// Not so: Jobs that a CronJob made, which are not handed over at all.

// suspendedJob is the annotation of a Job that a merge suspended.
const suspendedJob = "picube.io/suspended-by-merge"

// isDone reports whether a Job will do nothing any more.
func isDone(job object) bool {
	conditions, _ := at(job, "status", "conditions").([]any)
	return at(job, "status", "completionTime") != nil || slices.ContainsFunc(conditions, func(c any) bool {
		return (text(c, "type") == "Complete" || text(c, "type") == "Failed") && text(c, "status") == "True"
	})
}

// suspendJobs stops those that users made and that are not done.
func (a API) suspendJobs(ctx context.Context) error {
	return a.changeAll(ctx, jobs(), func(job object) object {
		if suspended, _ := at(job, "spec", "suspend").(bool); suspended || !isUsers(job) {
			return nil
		}
		return object{"metadata": object{"annotations": object{suspendedJob: "true"}}, "spec": object{"suspend": true}}
	})
}

// resumeJobs lets them go on.
func (a API) resumeJobs(ctx context.Context) error {
	return a.changeAll(ctx, jobs(), func(job object) object {
		if text(job, "metadata", "annotations", suspendedJob) == "" {
			return nil
		}
		return object{"metadata": object{"annotations": object{suspendedJob: nil}}, "spec": object{"suspend": false}}
	})
}

func jobs() resource { return resource{"/apis/batch/v1", "batch/v1", "jobs", "Job", true} }

// forNow is an object as the leader gets it while its cluster still works: a Job
// does not run there yet.
func forNow(o object) object {
	out := forLeader(o)
	if text(o, "kind") == "Job" {
		set(out, true, "spec", "suspend")
	}
	return out
}
