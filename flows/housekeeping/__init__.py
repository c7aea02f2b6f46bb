"""Keeping the platform in order: each look says what would go, what stays and why, before anything goes.

    reap      what killed processes left: runs that nobody continues, folders of jobs that are done
    retain    what is older and less needed than policy keeps: training states, versions without a use
    backup    a copy of everything that cannot be computed again, with a manifest of checksums
    restore   from such a copy to a new place, and the drill that proves that it can be done

plan        what goes and what stays, with reasons
policy      what is kept: section `retention` of params.yaml
snapshot    the layout of a backup and its manifest
flow        all of it by the clock
"""
