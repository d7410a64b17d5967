//! Which kernel an adapter gets for a call.

use moelab::{
    gpu::{Call, Capabilities, Command, DType, Modules, Shape, Tensor, TensorId, choose},
    ops::{
        Form, Graph,
        kernels::{MODULES, adamw, embedding, matmul, take_heads},
    },
};

const LANES: Capabilities = Capabilities { subgroup_sizes: [8, 8], ..Capabilities::CPU };

/// An NVIDIA card.
const TENSOR_CORES: Capabilities =
    Capabilities { f16: true, subgroup_sizes: [32, 32], matrices: [[16; 3]; 4], workgroup_bytes: 48 * 1024, ..Capabilities::PORTABLE };

fn tensor(id: u32, dims: [u32; 2]) -> Tensor {
    Tensor { id: TensorId(id), shape: Shape::from(dims), dtype: DType::F32, is_detached: false }
}

fn chosen(call: &impl Call, capabilities: &Capabilities) -> String {
    choose(call, capabilities).expect("a kernel").kernel.name()
}

fn product([m, n, k]: [u32; 3]) -> matmul::Nt {
    let params = matmul::Params { m, n, k, ..Default::default() };
    matmul::Nt { params, a: tensor(0, [m, k]), b: tensor(1, [n, k]), y: tensor(2, [m, n]) }
}

#[test]
fn the_best_that_an_adapter_has_and_that_fits_is_chosen() {
    let wide = product([40, 128, 64]);
    assert_eq!(chosen(&wide, &Capabilities::PORTABLE), "matmul_vec4.nt");
    assert_eq!(chosen(&wide, &Capabilities::CPU), "matmul_cpu.nt");
    assert_eq!(chosen(&wide, &LANES), "matmul_cpu_subgroups.nt");
    let few = Capabilities { subgroup_sizes: [4, 4], ..Capabilities::CPU };
    assert_eq!(chosen(&wide, &few), "matmul_cpu.nt");
    // Whole texels of y, and rows of the operands that images can have.
    assert_eq!(chosen(&product([40, 126, 64]), &LANES), "matmul.nt");
    assert_eq!(chosen(&product([40, 128, 60]), &LANES), "matmul_vec4.nt");
    assert_eq!(chosen(&product([8193, 128, 64]), &LANES), "matmul.nt");
}

/// Cooperative matrices are taken in the shape of the adapter's, by subgroups of exactly the size that the kernel knows, with the largest
/// tiles of which there are enough.
#[test]
fn tiles_of_cooperative_matrices_follow_the_sizes() {
    for (sizes, kernel) in [
        ([4096, 4096, 64], "matmul_coop_large.nt"),
        ([12_288, 384, 64], "matmul_coop.nt"),
        ([40, 128, 64], "matmul_coop_small.nt"),
        ([44, 128, 64], "matmul_vec4.nt"),
    ] {
        assert_eq!(chosen(&product(sizes), &TENSOR_CORES), kernel, "{sizes:?}");
    }
    // Parts of k are tiles as well.
    let parts = |m, n, parts: u32| {
        let params = matmul::Params { m, n, k: 12_288, k_part: 12_288 / parts, ..Default::default() };
        matmul::TnParts { params, a: tensor(0, [12_288, m]), b: tensor(1, [12_288, n]), y: tensor(2, [parts * m, n]) }
    };
    assert_eq!(chosen(&parts(1152, 384, 9), &TENSOR_CORES), "matmul_coop.tn_parts");
    assert_eq!(chosen(&parts(1152, 384, 2), &TENSOR_CORES), "matmul_coop_small.tn_parts");
    let of_two_sizes = Capabilities { subgroup_sizes: [32, 64], ..TENSOR_CORES };
    assert_eq!(chosen(&product([40, 128, 64]), &of_two_sizes), "matmul_vec4.nt");
}

/// Tiles are each kernel's own: a grid follows from the kernel that is chosen.
#[test]
fn the_grid_is_the_kernels() {
    let call = product([65, 68, 64]);
    assert_eq!(choose(&call, &Capabilities::PORTABLE).unwrap().grid, [2, 2, 1]);
    assert_eq!(choose(&call, &Capabilities::CPU).unwrap().grid, [3, 2, 1]);
}

#[test]
fn flat_textures_have_rows_of_their_own() {
    let params = take_heads::Params { heads: 48, width: 20, value: 8 };
    let call = take_heads::Forward { params, x: tensor(0, [16, 60]), y: tensor(1, [16, 24]) };
    let found = choose(&call, &Capabilities::CPU).unwrap();
    assert_eq!(found.kernel.name(), "take_heads_texels.forward");
    assert_eq!(found.tensors[0].shape.as_slice(), [15, 64]);
    let ragged = take_heads::Forward { params: take_heads::Params { value: 6, ..params }, ..call };
    assert_eq!(chosen(&ragged, &Capabilities::CPU), "take_heads.forward");
}

/// A sibling without requirements, a condition on a size, and a kernel that only some adapters have.
#[test]
fn conditions_on_sizes_and_entry_points_hold() {
    let update = |n: u32, expert: u32| {
        let t = tensor(0, [n / 64, 64]);
        let params = adamw::Params { n, expert, ..Default::default() };
        adamw::Update { params, clip: t, corrections: t, d_w: t, w: t, m: t, v: t, damage: t }
    };
    assert_eq!(chosen(&update(8192, 0), &Capabilities::CPU), "adamw_cpu.update");
    assert_eq!(chosen(&update(8128, 0), &Capabilities::CPU), "adamw_vec4.update");
    assert_eq!(chosen(&update(8128, 0), &Capabilities::PORTABLE), "adamw_vec4.update");
    assert_eq!(chosen(&update(8128, 6), &Capabilities::PORTABLE), "adamw.update");
    let walk = |vocabulary: u32| {
        let params = embedding::Params { rows: 4, width: 64, vocabulary, scale: 1.0 };
        let [tokens, d_y, d_w] = [tensor(0, [1, 4]), tensor(1, [4, 64]), tensor(2, [vocabulary, 64])];
        embedding::BackwardWeightInOrder { params, tokens, d_y, d_w }
    };
    assert_eq!(chosen(&walk(8192), &Capabilities::CPU), "embedding_cpu.backward_weight_in_order");
    assert!(choose(&walk(8193), &Capabilities::CPU).is_none() && choose(&walk(19), &Capabilities::PORTABLE).is_none());
}

#[test]
fn sets_of_capabilities_run_every_source() {
    let names = |own: Capabilities| own.sets(MODULES).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(Capabilities::PORTABLE), ["portable"]);
    assert_eq!(names(Capabilities::CPU), ["cpu", "portable"]);
    assert_eq!(names(LANES), ["cpu", "portable", "images"]);
    let rasteriser = Capabilities { f16: true, matrices: [[8; 3], [16; 3], [0; 3], [0; 3]], ..LANES };
    let sets = [rasteriser, TENSOR_CORES].map(|own| own.sets(MODULES)).concat();
    for module in MODULES {
        assert!(sets.iter().any(|(_, set)| set.satisfy(&module.requires)), "{}", module.name);
    }
}

/// Modules to do without give way to the next sibling, and never to none; the workgroups that keep an adapter busy decide on parts of k.
#[test]
fn a_choice_can_be_changed() {
    let module = |name: &str| *MODULES.iter().find(|m| m.name == name).unwrap();
    let without = |names: &[&str]| names.iter().fold(Modules::default(), |all, name| all.with(module(name)));
    let wide = product([40, 128, 64]);
    for (names, wanted) in [
        (&["matmul_cpu_subgroups"][..], "matmul_cpu.nt"),
        (&["matmul_cpu"], "matmul_cpu_subgroups.nt"),
        (&["matmul_cpu_subgroups", "matmul_cpu"], "matmul_vec4.nt"),
        // The reference is in no set.
        (&["matmul_cpu_subgroups", "matmul_cpu", "matmul_vec4", "matmul"], "matmul.nt"),
    ] {
        assert_eq!(chosen(&wide, &Capabilities { without: without(names), ..LANES }), wanted, "{names:?}");
    }
    let parts = |workgroups: u32| {
        let mut g = Graph::new(Capabilities { workgroups, ..Capabilities::PORTABLE });
        let (a, b) = (g.leaf("a", [4096, 64]), g.leaf("b", [4096, 64]));
        g.matmul(a, b, Form::Tn);
        let program = g.finish();
        program.micro.iter().any(|c| matches!(c, Command::Dispatch(d) if d.kernel.entry == "tn_parts"))
    };
    assert_eq!([1, 2, 1024].map(parts), [false, true, true]);
}
