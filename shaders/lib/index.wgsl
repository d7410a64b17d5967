// Grids beyond 65,535 workgroups are folded into y by the host; this is the flat index again.

fn flat_workgroup(workgroup_id: vec3<u32>, num_workgroups: vec3<u32>) -> u32 {
    return workgroup_id.x + workgroup_id.y * num_workgroups.x;
}
