"""Keeping the platform in order: each look says what would go, what stays and why, before anything goes.

    reap      what killed processes left: runs that nobody continues, folders of jobs that are done
    retain    what is older and less needed than policy keeps: training states, versions without a use
    backup    a copy of what cannot be computed again, with a manifest of checksums; says what it leaves out
    restore   from such a copy to a new place
    drill     restores for a moment, and proves that what is there works

plan        what goes and what stays, with reasons
policy      what is kept: section `retention` of params.yaml
snapshot    the layout of a backup, its manifest, and what no backup holds
flow        all of it by the clock
"""
