"""What torch_npu, CANN and OpenMP read from the environment, once, when they load."""

from pathlib import Path

from pydantic_settings import BaseSettings

from env.field import setting


class NativeSettings(BaseSettings):
    """Handed on under the names in `exports`."""

    task_queue_enable: int = setting(
        1,
        "",
        "Operator queue of torch_npu: 0 off, 1 on, 2 prepares operators in the background too, for more peak memory.",
        "torch_npu 的算子下发队列:0 关闭,1 开启,2 另在后台准备算子,峰值内存更高。",
        exports="TASK_QUEUE_ENABLE",
        ge=0,
        le=2,
    )
    npu_alloc_conf: str | None = setting(
        None,
        "",
        "Options of torch_npu's memory allocator.",
        "torch_npu 内存分配器的选项。",
        exports="PYTORCH_NPU_ALLOC_CONF",
        form="option:value,…",
        pattern=r"^\w+:[^,\s]+(,\w+:[^,\s]+)*$",
    )
    cpu_affinity_conf: str | None = setting(
        None,
        "",
        "Binds torch_npu's threads to cores: 0 no, 1 coarsely, 2 finely; add force:1 under cgroup limits.",
        "torch_npu 线程绑核:0 不绑,1 粗粒度,2 细粒度;受 cgroup 限制时加 force:1。",
        exports="CPU_AFFINITY_CONF",
        form="0, 1, 2 or 2,option:value,…",
        pattern=r"^[012](,\w+:[\w-]+)*$",
    )
    omp_num_threads: int | None = setting(
        None,
        "threads",
        "CPU threads for one operator. Not set: as many as there are cores.",
        "单个算子使用的 CPU 线程数。未设置时与核数相同。",
        exports="OMP_NUM_THREADS",
        ge=1,
        le=1024,
    )
    op_cache_dir: Path | None = setting(
        None,
        "",
        "Where CANN keeps the operators it compiled. In a container, put it on a volume that is kept.",
        "CANN 保存已编译算子的目录。在容器中请放到持久卷上。",
        exports="ACL_OP_COMPILER_CACHE_DIR",
    )
    jit_compile: bool = setting(
        False,
        "",
        "Compile each operator for each new shape instead of using CANN's ready kernels. Slow where lengths vary.",
        "对每种新形状在线编译算子,而不用 CANN 自带的算子二进制。长度多变时很慢。",
    )
